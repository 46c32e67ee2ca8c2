"""BF-CNN (Mohan, Kadkhodaie et al. 2020, appendix A): 3×3 convolutions without bias at full resolution.

Bias-free batch normalisation and ReLU follow every convolution except the first and the last, which are linear.
"""

from torch import Tensor, nn

from gahb.models.layers import conv, conv_norm_relu


class BFCNN(nn.Module):
    """Noisy images (B, 1, H, W) to estimated noise of the same shape; any H and W."""

    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        inner = [conv_norm_relu(width, width) for _ in range(layers - 2)]
        self.layers = nn.Sequential(conv(1, width), *inner, conv(width, 1))

    def forward(self, y: Tensor) -> Tensor:
        return self.layers(y)
