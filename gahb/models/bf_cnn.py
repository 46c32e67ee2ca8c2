"""BF-CNN (Mohan, Kadkhodaie et al. 2020, appendix A): convolutions without bias at full resolution.

Bias-free batch normalisation and ReLU follow every convolution except the first and the last. The last is linear, and
the first too unless it has a ReLU. With a `spacing` above 1 only every so many inner convolutions are 3×3, the others
1×1, which makes the receptive field smaller and changes nothing else.
"""

from itertools import chain

from torch import Tensor, nn

from gahb.models.activation_checkpointing import BlockNetwork, identity, parts
from gahb.models.architectures import LAYERS_PER_BLOCK
from gahb.models.layers import PiecewiseLinear, conv, conv_norm_relu


class BFCNN(BlockNetwork, PiecewiseLinear):
    """Noisy images (B, channels, H, W) to estimated noise of the same shape; any H and W."""

    def __init__(self, layers: int, width: int, spacing: int = 1, first_relu: bool = False, channels: int = 1) -> None:
        super().__init__()
        sides = [1 if layer % spacing else 3 for layer in range(1, layers - 1)]
        inner = [conv_norm_relu(width, width, side) for side in sides]
        first = conv(channels, width)
        opening = nn.Sequential(first, nn.ReLU(inplace=True)) if first_relu else first
        self.layers = nn.Sequential(opening, *inner, conv(width, channels))

    def forward(self, y: Tensor) -> Tensor:
        layers = parts(chain.from_iterable(each if isinstance(each, nn.Sequential) else [each] for each in self.layers))
        for start in range(0, len(layers), LAYERS_PER_BLOCK):
            y = self.block(self.chain, list(chain.from_iterable(layers[start : start + LAYERS_PER_BLOCK])), identity, y)
        return y
