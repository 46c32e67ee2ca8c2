"""What a trained denoiser is held against, by name, and how those that have a constant get it.

A threshold's constant is tuned on training images at each σ, and what is thresholded is averaged over shifts of the
image (cycle spinning, Coifman & Donoho 1995): a basis cut into squares, or scales, sees an image differently wherever
it lies.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gahb.denoising import noise
from gahb.denoising.analytic import (
    AnalyticDenoiser,
    Basis,
    Cosines,
    Denoise,
    Empirical,
    Oracle,
    Threshold,
    Wavelets,
    Wiener,
)
from gahb.denoising.bandlets import BandletOracle, BandletThreshold

SHIFT = 7, 3
"""By how many pixels an image is moved on, down and to the right."""


class CycleSpinning(AnalyticDenoiser):
    """The mean of a denoiser over images moved on a torus by 0, 1, … `shifts` - 1 times SHIFT, and moved back."""

    def __init__(self, denoiser: AnalyticDenoiser, shifts: int) -> None:
        self.denoiser = denoiser
        self.shifts = shifts

    def at(self, sigma: float, clean: Tensor) -> Denoise:
        def moved(images: Tensor, by: int) -> Tensor:
            return images.roll((by * SHIFT[0], by * SHIFT[1]), dims=(-2, -1))

        def denoise(y: Tensor) -> Tensor:
            total = torch.zeros_like(y)
            for i in range(self.shifts):
                total += moved(self.denoiser.at(sigma, moved(clean, i))(moved(y, i)), -i)
            return total / self.shifts

        return denoise


class Tuned(AnalyticDenoiser):
    """At each σ the one of several denoisers whose mean squared error is least on `images` (N, C, H, W)."""

    def __init__(self, denoisers: Sequence[AnalyticDenoiser], images: Tensor) -> None:
        self.denoisers = denoisers
        self.images = images
        self._best: dict[float, AnalyticDenoiser] = {}

    def at(self, sigma: float, clean: Tensor) -> Denoise:
        if sigma not in self._best:
            self._best[sigma] = min(self.denoisers, key=lambda denoiser: self.error(denoiser, sigma))
        return self._best[sigma].at(sigma, clean)

    def error(self, denoiser: AnalyticDenoiser, sigma: float) -> float:
        """Mean over `images` and pixels, with the noise that all are tuned with."""
        z = torch.randn(self.images.shape, generator=noise.generator("tuning")).to(self.images)
        denoised = denoiser.at(sigma, self.images)(self.images + sigma * z)
        return float((denoised - self.images).square().mean())


SOFT, HARD = (0.5, 1.0, 1.5, 2.0, 2.5), (2.0, 2.5, 3.0, 3.5, 4.0)
"""c among which the thresholds of fixed bases are tuned; those of bandlets are hard."""

BANDLETS = (2.5, 3.0, 3.5, 4.0)


def tuned_threshold(basis: Basis, images: Tensor) -> AnalyticDenoiser:
    """Soft or hard thresholding in a fixed basis, averaged over 16 shifts, tuned on 16 of the images."""
    kinds = [Threshold(basis, factor) for factor in SOFT] + [Threshold(basis, factor, hard=True) for factor in HARD]
    return Tuned([CycleSpinning(kind, 16) for kind in kinds], images[:16])


def tuned_bandlets(images: Tensor) -> AnalyticDenoiser:
    """Thresholding in the best bandlet basis, averaged over 8 shifts, tuned on 4 of the images."""
    return Tuned([CycleSpinning(BandletThreshold(factor), 8) for factor in BANDLETS], images[:4])


DENOISERS: dict[str, Callable[[Tensor], AnalyticDenoiser]] = {
    "empirical": Empirical,
    "wiener": Wiener,
    "threshold_dct": lambda images: tuned_threshold(Cosines(), images),
    "threshold_wavelet": lambda images: tuned_threshold(Wavelets(), images),
    "threshold_bandlet": tuned_bandlets,
    "oracle_dct": lambda images: Oracle(Cosines()),
    "oracle_wavelet": lambda images: Oracle(Wavelets()),
    "oracle_bandlet": lambda images: BandletOracle(),
}
"""Name → the denoiser that belongs to training images (N, C, H, W) in [0, 1]; oracles ignore them."""
