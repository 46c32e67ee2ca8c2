"""What a layer costs, counted on shapes alone and without torch, so that a sweep can be planned quickly.

A 3×3 convolution from c to c′ channels at p pixels has 9·c·c′ weights and takes 2·9·c·c′·p floating-point operations
an image (a multiplication and an addition are two). Backward needs its input again, and what is normalised after it.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Layer:
    """Counts of a layer.

    Args:
        parameters: trained numbers.
        flops: operations of the forward pass, an image.
        kept: numbers that backward needs, an image.
        largest: numbers of the largest tensor that the layer reads or writes, an image.
    """

    parameters: int
    flops: int
    kept: int
    largest: int


def convolution(inputs: int, outputs: int, pixels: int, *, side: int = 3, norm: bool = True) -> Layer:
    """A convolution between numbers of channels at so many pixels, followed by normalisation and ReLU or by neither."""
    return Layer(
        parameters=inputs * outputs * side**2 + (outputs if norm else 0),
        flops=2 * inputs * outputs * side**2 * pixels,
        kept=(inputs + (outputs if norm else 0)) * pixels,
        largest=max(inputs, outputs) * pixels,
    )


def doubling(inputs: int, outputs: int, pixels: int) -> Layer:
    """A 2×2 transposed convolution of stride 2 from so many pixels to four times as many."""
    return Layer(
        parameters=4 * inputs * outputs,
        flops=2 * 4 * inputs * outputs * pixels,
        kept=inputs * pixels,
        largest=max(inputs, 4 * outputs) * pixels,
    )


def linear(inputs: int, outputs: int, tokens: int) -> Layer:
    """A linear map of each token."""
    return Layer(
        parameters=inputs * outputs,
        flops=2 * inputs * outputs * tokens,
        kept=inputs * tokens,
        largest=max(inputs, outputs) * tokens,
    )


def attention(width: int, heads: int, tokens: int) -> Layer:
    """Attention between its linear maps, with a gain a head: two products of tokens × tokens, whose weights are kept
    beside queries, keys and values."""
    return Layer(
        parameters=heads,
        flops=2 * 2 * width * tokens**2,
        kept=heads * tokens**2 + 6 * width * tokens,
        largest=max(heads * tokens**2, 3 * width * tokens),
    )
