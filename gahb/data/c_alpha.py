"""Geometric C^α images: regular contours on regular backgrounds (Algorithm 2, appendix E; Figures 4, 16–18).

A contour C and two backgrounds B₁, B₂ are white uniform noise, integrated α times in the Fourier domain,

    C = F⁻¹( |k|^-α · F c ),    B = F⁻¹( (k₁² + k₂²)^(-α/2) · F b ),    c, b ~ U[-1, 1] i.i.d.,

with integer frequencies k and the filter's zero bin replaced by its neighbour. The contour is offset to mid-height
and rounded to pixels; one background is rescaled to [a, 1] and the other to [0, b], a and b uniform, in random
order; the mask between them is blurred 2×2. The best denoiser's PSNR grows with slope α/(α+1) (§3.2).

Pixels are the unit of the law, so it is another at each size: for α = 2 the contour's standard deviation falls from
0.25 of a side of 16 pixels to 0.08 of one of 160, and in 3 to 6 % of the columns of images of 16 to 20 pixels it
has left the image. For one law at all sizes, draw at the largest and average over boxes of pixels (`drawn_at`).
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gahb.config_fields import later
from gahb.data.source import CHUNK, Synthetic
from gahb.errors import UserError

LARGEST = 1024
"""Pixels a side at which images are drawn to be averaged, at most."""

AT_ONCE = 8
"""Images whose pixels are worked on together, few enough for the processor's cache."""


@dataclass(frozen=True)
class CAlpha(Synthetic):
    """C^α images.

    Args:
        alpha: regularity α > 0 of contour and background.
        background_alpha: regularity of the backgrounds where it differs (Figure 17); 0 means that of the contour.
        drawn_at: pixels a side at which images are drawn, a multiple of the resolution, to which they are averaged; 0
            means the resolution, as in the paper.
    """

    name: ClassVar[str] = "c_alpha"
    version: ClassVar[int] = 2
    bits: ClassVar[int] = 16
    alpha: float = 2.0
    background_alpha: float = later(0.0)
    drawn_at: int = later(0)

    def __post_init__(self) -> None:
        if self.background_alpha == self.alpha:
            object.__setattr__(self, "background_alpha", 0.0)
        if not 0 < self.alpha <= 20:
            raise UserError(f"alpha={self.alpha}: must lie in (0, 20]")
        if not 0 <= self.background_alpha <= 20:
            raise UserError(f"background_alpha={self.background_alpha}: must lie in [0, 20]")
        if not 0 <= self.drawn_at <= LARGEST:
            raise UserError(f"drawn_at={self.drawn_at}: must lie in 1 … {LARGEST}, or 0 for the resolution")

    def check(self, resolution: int) -> None:
        if self.drawn_at % resolution:
            raise UserError(f"drawn_at={self.drawn_at}: must be a multiple of the resolution, {resolution}, or 0")

    def chunk(self, resolution: int, index: int) -> NDArray[np.uint16]:
        """Images index·CHUNK … (index+1)·CHUNK - 1 of the endless sequence, (CHUNK, resolution, resolution)."""
        n, side = CHUNK, self.drawn_at or resolution
        # one sequence of numbers, read at three places: the contours and all B₁, then all B₂, then the rest
        rng, second, last = (
            _numbers(index, skipped) for skipped in (0, n * side * (1 + side), n * side * (1 + 2 * side))
        )
        contour = _integrate(rng.uniform(-1, 1, (n, side)), self.alpha, axes=(1,)).real
        low, high = last.uniform(0, 1, (2, n, 1, 1))
        order = last.integers(0, 2, (n, 1, 1)).astype(bool)
        edge = (np.rint(contour * side) + side // 2)[:, None, :]
        quarters = _quarters(edge, side)  # of the bright background in each pixel
        np.subtract(4, quarters, out=quarters, where=~order)

        images = np.empty((n, resolution, resolution), np.uint16)
        boxes = resolution, side // resolution
        both = np.empty((AT_ONCE, side, side), np.complex128)
        backgrounds = np.empty((2, AT_ONCE, side, side))
        bright, dark = backgrounds
        for start in range(0, n, AT_ONCE):
            part = slice(start, start + AT_ONCE)
            both.real = rng.random(out=bright)  # on [0, 1], as the range is changed later anyway
            both.imag = second.random(out=dark)
            both = _integrate(both, self.background_alpha or self.alpha, axes=(1, 2))
            bright[:], dark[:] = both.real, both.imag
            _to_unit_range(backgrounds)
            bright *= 1 - low[part]
            bright += low[part]
            dark *= high[part]
            bright -= dark
            bright *= 0.25 * quarters[part]
            bright += dark
            drawn = bright.reshape(AT_ONCE, *boxes, *boxes).mean(axis=(2, 4)) if self.drawn_at else bright
            images[part] = np.rint(0xFFFF * drawn)
        return images


def _numbers(index: int, skipped: int) -> np.random.Generator:
    """The random numbers of a chunk, without the first so many."""
    bits = np.random.PCG64([0xCA1FA, index])
    bits.advance(skipped)
    return np.random.Generator(bits)


def _quarters(edge: NDArray[np.float64], side: int) -> NDArray[np.uint8]:
    """The mask, 1 at and below the edge (n, 1, side) and 0 above it, summed over 2×2 pixels: (n, side, side)."""
    mask = (np.arange(side)[:, None] >= edge).view(np.uint8)
    padded = np.pad(mask, ((0, 0), (1, 0), (1, 0)), mode="reflect" if side > 1 else "edge")
    rows = padded[:, 1:] + padded[:, :-1]
    return rows[:, :, 1:] + rows[:, :, :-1]


def _to_unit_range(images: NDArray[np.float64]) -> None:
    """Each image moved and scaled to [0, 1], in place."""
    low = images.min(axis=(-2, -1), keepdims=True)
    high = images.max(axis=(-2, -1), keepdims=True)
    images -= low
    images /= np.maximum(high - low, np.finfo(float).tiny)  # of one pixel they are equal


def _integrate(noise: NDArray[Any], alpha: float, axes: tuple[int, ...]) -> NDArray[np.complex128]:
    """α-fold integral along the axes, all of one length: multiplication by |k|^-α in the Fourier domain. Complex noise
    is overwritten; its real and its imaginary part are integrated each by itself, because the factor is real and even.
    """
    from scipy.fft import fftn, ifftn  # slow to import

    spectrum = fftn(noise, axes=axes, overwrite_x=True)
    spectrum.view(np.float64)[...] *= _factor(noise.shape[axes[0]], alpha, len(axes))
    return ifftn(spectrum, axes=axes, overwrite_x=True)


@lru_cache
def _factor(side: int, alpha: float, dimensions: int) -> NDArray[np.float64]:
    """|k|^-α for the real and for the imaginary parts in turn, (2·side,) or (side, 2·side)."""
    squares = np.fft.fftfreq(side, 1 / side) ** 2
    squared = squares if dimensions == 1 else squares[:, None] + squares
    squared.flat[0] = 1.0
    return np.repeat(np.power(squared, -alpha / 2, dtype=np.float64), 2, axis=-1)
