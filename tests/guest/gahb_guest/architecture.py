"""A plain convolutional network."""

from dataclasses import dataclass

from gahb.plugins import Architecture


@dataclass(frozen=True)
class Plain(Architecture):
    """Three convolutions without bias, with ReLUs between them."""

    name = "plain"
    channels: int = 16
    side: int = 5

    def build(self):
        from torch import nn

        def conv(inputs, outputs):
            return nn.Conv2d(inputs, outputs, self.side, padding=self.side // 2, bias=False)

        c = self.channels
        return nn.Sequential(conv(1, c), nn.ReLU(), conv(c, c), nn.ReLU(), conv(c, 1))
