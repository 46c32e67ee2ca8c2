"""The bias-free UNet of appendix A and Table 1.

Each block is two 3×3 convolutions. Going down, 2×2 average pooling and twice the channels; going up, a 2×2
stride-2 transposed convolution, half the channels, and the encoder's features of that level beside them.
Every convolution is followed by bias-free batch normalisation and ReLU, except the first (ReLU alone) and the
last (neither).
"""

from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from gahb.models.activation_checkpointing import BlockNetwork, identity
from gahb.models.layers import PiecewiseLinear, beside, conv, conv_norm_relu


class UNet(BlockNetwork, PiecewiseLinear):
    """Noisy images (B, channels, H, W) to estimated noise of the same shape; H and W multiples of 2^blocks."""

    def __init__(self, blocks: int, width: int, channels: int = 1) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(blocks + 1)]
        first = nn.Sequential(conv(channels, width), nn.ReLU(inplace=True), *conv_norm_relu(width, width))
        self.encoder = nn.ModuleList([first, *(_block(widths[i - 1], widths[i]) for i in range(1, blocks))])
        self.middle = _block(widths[-2], widths[-1])
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * c, c, kernel_size=2, stride=2, bias=False) for c in widths[:-1])
        last = nn.Sequential(*conv_norm_relu(2 * width, width), conv(width, channels))
        self.decoder = nn.ModuleList([last, *(_block(2 * c, c) for c in widths[1:-1])])

    def forward(self, y: Tensor) -> Tensor:
        x = self.block(self.chain, self.encoder[0], identity, y)
        skips = []
        for encode in (*self.encoder[1:], self.middle):
            skips.append(x)
            x = self.block(self.chain, encode, _halved, x)
        for up, decode in zip(reversed(self.up), reversed(self.decoder), strict=True):
            x = self.block(self.chain, decode, _joined, up, x, skips.pop())
        return x


def _halved(x: Tensor) -> Tensor:
    return avg_pool2d(x, 2)


def _joined(up: nn.Module, x: Tensor, skip: Tensor) -> Tensor:
    raised = up(x)
    return beside(raised, skip.to(raised.dtype))


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(*conv_norm_relu(inputs, outputs), *conv_norm_relu(outputs, outputs))
