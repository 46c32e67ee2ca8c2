"""The architectures and their hyperparameters, without torch, so that a sweep can be listed quickly.

The receptive field is found by passing an interval of pixels back through the layers: a 3×3 convolution widens
it by one on both sides, average pooling doubles it, the stride-2 transposed convolution halves it, and a
concatenation takes the hull of both branches. Layers act on rows and columns alike, so one dimension is enough.
Attention sees every pixel, so a transformer's is infinite.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from gahb.config_fields import GIVEN, check_configuration, check_range, flatten, later
from gahb.errors import UserError
from gahb.models.layer_costs import Layer, attention, block, convolution, counted, doubling, linear, pooling
from gahb.registry import Group, new_group

if TYPE_CHECKING:
    from torch import nn

LAYERS_PER_BLOCK = 3
"""Of BF-CNN's activation checkpointing, which is near the least memory for 21 layers."""

MOST = 4096
"""Channels, layers, heads or pixels of a patch; twelve blocks halve so many pixels to one."""

DEEPEST = 1024
"""Blocks of a transformer: to lay out so many takes seconds, even without memory for them."""


@dataclass(frozen=True)
class Architecture(ABC):
    """A network's hyperparameters; a frozen dataclass, whose fields are the keys that `architecture=<name>` adds to a
    trial.

    Fields are bool, int, float or str, have defaults, and are checked in `__post_init__`, which raises UserError. The
    network is homogeneous of degree 1 in evaluation mode: f(a·y) = a·f(y) for a > 0.

    Args:
        image_channels: 1 of gray images, 3 of those in colour; the data set decides.
    """

    name: ClassVar[str]
    image_channels: int = field(default=1, kw_only=True, metadata={GIVEN: True})

    @classmethod
    def at(cls, resolution: int, **hyperparameters: Any) -> Self:
        """The architecture with what is left out chosen for the resolution."""
        return cls(**hyperparameters)

    def flat(self) -> dict[str, Any]:
        """The keys that this architecture adds to a flat trial."""
        return {"architecture": self.name, **flatten(self)}

    def card(self) -> dict[str, Any]:
        """What makes the network, as weights are described: `flat`, and the images' channels where they are in
        colour."""
        colour = {"image_channels": self.image_channels} if self.image_channels > 1 else {}
        return {**self.flat(), **colour}

    def check(self, resolution: int) -> None:  # noqa: B027  # most take every resolution
        """Raise UserError if images of this resolution do not fit."""

    def receptive_field(self) -> float | None:
        """Side in pixels of the square that one output pixel depends on: the least over output positions,
        as in Table 1, in an image large enough to hold it; infinite if it is the whole image at every size, None if
        it is not known."""
        return None

    def counts(self, resolution: int) -> list[Layer]:
        """The counts of every layer of `build`'s network on images of this resolution; if no formula is given, from a
        forward pass of shapes alone."""
        try:
            return counted(self.build, resolution, self.image_channels)
        except UserError as error:
            raise UserError(f"the architecture {self.name!r} on images of {resolution}×{resolution}: {error}") from None

    @abstractmethod
    def build(self) -> "nn.Module":
        """The network y ↦ estimated noise, (B, image_channels, H, W) to the same, not yet initialised for training."""


@dataclass(frozen=True)
class UNet(Architecture):
    """The UNet of Table 1.

    Args:
        blocks: encoder and decoder blocks, each of which halves the image.
        width: channels at the first level.
    """

    name: ClassVar[str] = "unet"
    blocks: int
    width: int = 64

    def __post_init__(self) -> None:
        check_range(12, blocks=self.blocks)
        check_range(MOST, width=self.width)

    @classmethod
    def at(cls, resolution: int, **hyperparameters: Any) -> Self:
        """`blocks` defaults to Table 1's (20 → 1, 40 → 2, 80 → 3, 160 → 4), rounded down between its rows."""
        table = max(1, math.floor(math.log2(max(resolution, 1) / 10)))
        return cls(**{"blocks": table, **hyperparameters})

    def check(self, resolution: int) -> None:
        network = f"a UNet with blocks={self.blocks} halves the image {self.blocks} times and"
        _check_multiple(resolution, 2**self.blocks, network)

    def receptive_field(self) -> int:
        def back(low: int, high: int, level: int) -> tuple[int, int]:
            """Interval of input pixels behind [low, high] of level's decoder output."""
            low, high = low - 2, high + 2
            if level == self.blocks:
                return to_input(low, high, level)
            skip = to_input(low - 2, high + 2, level)
            deep = back(low // 2, high // 2, level + 1)
            return min(skip[0], deep[0]), max(skip[1], deep[1])

        def to_input(low: int, high: int, level: int) -> tuple[int, int]:
            """The same behind [low, high] of the first feature map of encoder `level`."""
            for _ in range(level):
                low, high = 2 * low - 2, 2 * high + 1 + 2
            return low, high

        sizes = [high - low + 1 for low, high in (back(p, p, 0) for p in range(2**self.blocks))]
        return min(sizes)

    def counts(self, resolution: int) -> list[Layer]:
        channels = [self.width * 2**level for level in range(self.blocks + 1)]
        pixels = [(resolution // 2**level) ** 2 for level in range(self.blocks + 1)]
        first = convolution(self.image_channels, self.width, pixels[0], norm=False)
        layers = block(first, convolution(self.width, self.width, pixels[0]), opens=self.image_channels * pixels[0])
        for above, level, p in zip(channels, channels[1:], pixels[1:], strict=False):
            layers += block(
                pooling(above, p, convolution(above, level, p)), convolution(level, level, p), opens=above * 4 * p
            )
        for i in range(self.blocks, 0, -1):
            above, level, p = channels[i - 1], channels[i], pixels[i - 1]
            last = convolution(above, above, p) if i > 1 else convolution(above, self.image_channels, p, norm=False)
            rise = doubling(level, above, pixels[i]), replace(convolution(level, above, p), shared=above * p), last
            layers += block(*rise, opens=level * pixels[i])
        return layers

    def build(self) -> "nn.Module":
        from gahb.models import unet

        return unet.UNet(self.blocks, self.width, self.image_channels)


@dataclass(frozen=True)
class BFCNN(Architecture):
    """The bias-free convolutional network BF-CNN of appendix A.

    Args:
        layers: convolutions, of which the first and the last are 3×3.
        width: channels.
        spacing: every so many of the inner layers are 3×3, the others 1×1; with 21 layers 1, 2, 4, 8 and 20 give
            receptive fields of 43, 23, 13, 9 and 5 pixels.
        first_relu: put a ReLU after the first layer.
    """

    name: ClassVar[str] = "bf_cnn"
    layers: int = 21
    width: int = 64
    spacing: int = later(1)
    first_relu: bool = later(False)

    def __post_init__(self) -> None:
        check_range(MOST, layers=self.layers, width=self.width, spacing=self.spacing)
        if self.layers < 2:
            raise UserError(f"layers={self.layers}: must be at least 2")

    def receptive_field(self) -> int:
        return 2 * (2 + (self.layers - 2) // self.spacing) + 1

    def counts(self, resolution: int) -> list[Layer]:
        pixels = resolution**2
        sides = [1 if layer % self.spacing else 3 for layer in range(1, self.layers - 1)]
        inner = [convolution(self.width, self.width, pixels, side=side) for side in sides]
        first = convolution(self.image_channels, self.width, pixels, norm=False)
        last = convolution(self.width, self.image_channels, pixels, norm=False)
        layers = [first, *inner, last]
        counted = block(first, *layers[1 : 1 + LAYERS_PER_BLOCK], opens=self.image_channels * pixels)
        for i in range(1 + LAYERS_PER_BLOCK, len(layers), LAYERS_PER_BLOCK):
            counted[-1] = replace(counted[-1], cheap=counted[-1].kept)  # its result opens the next block
            counted += block(*layers[i : i + LAYERS_PER_BLOCK], opens=self.width * pixels)
        return counted

    def build(self) -> "nn.Module":
        from gahb.models import bf_cnn

        return bf_cnn.BFCNN(self.layers, self.width, self.spacing, self.first_relu, self.image_channels)


@dataclass(frozen=True)
class Transformer(Architecture):
    """A bias-free transformer on patches of the image: blocks of attention and a two-layer network four times as wide.

    Args:
        patch: pixels a side of a patch, even, and a divisor of the resolution.
        depth: blocks.
        width: channels of a token, a multiple of 4·`heads`.
        heads: heads of attention.
    """

    name: ClassVar[str] = "transformer"
    patch: int = 4
    depth: int = 4
    width: int = 192
    heads: int = 4

    def __post_init__(self) -> None:
        check_range(DEEPEST, depth=self.depth)
        check_range(MOST, patch=self.patch, width=self.width, heads=self.heads)
        if self.patch % 2:
            raise UserError(f"patch={self.patch}: must be even")
        if self.width % (4 * self.heads):
            raise UserError(
                f"width={self.width}: must be a multiple of {4 * self.heads}, four times heads={self.heads}"
            )

    def check(self, resolution: int) -> None:
        _check_multiple(resolution, self.patch, f"a transformer with patch={self.patch}")

    def receptive_field(self) -> float:
        return math.inf

    def counts(self, resolution: int) -> list[Layer]:
        tokens, width = (resolution // self.patch) ** 2, self.width
        window = self.image_channels * (2 * self.patch) ** 2
        layers = [
            linear(width, 3 * width, tokens),
            attention(width, self.heads, tokens),
            linear(width, width, tokens),
            linear(width, 4 * width, tokens),
            linear(4 * width, width, tokens),
        ]
        read = block(linear(window, width, tokens), opens=window * tokens)
        write = block(linear(width, window, tokens), opens=width * tokens)
        return [*read, *(self.depth * block(*layers, opens=width * tokens)), *write]

    def build(self) -> "nn.Module":
        from gahb.models import transformer

        return transformer.Transformer(self.patch, self.depth, self.width, self.heads, self.image_channels)


def _check(architecture: Any) -> None:
    check_configuration(architecture, Architecture)


ARCHITECTURES: Group[type[Architecture]] = new_group("architectures", "architecture", _check)
for _architecture in (UNet, BFCNN, Transformer):
    ARCHITECTURES.add(_architecture.name, _architecture)


def _check_multiple(resolution: int, factor: int, network: str) -> None:
    if resolution < factor or resolution % factor:
        near = max(factor, round(resolution / factor) * factor)
        raise UserError(f"resolution={resolution}: {network} takes multiples of {factor} only, such as {near}")
