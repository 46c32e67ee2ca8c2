"""Denoising performance: output PSNR against noise level, and the gap between training and held-out images.

    input PSNR = -20 log₁₀ σ,    output PSNR = 10 log₁₀(1 / MSE) for each image, then averaged (Figure 1),
    PSNR gap = train PSNR - test PSNR, averaged over σ in [0, 1] (Figure 15).

The paper does not say how σ is spread over [0, 1]. `psnr_gap` is the average uniform in σ, the trapezoidal rule on the
grid of the curve, whose lowest level stands for all below it; half its weight is at σ > 1/2. `psnr_gap_db` is uniform
in decibels, over input PSNR 0 … 42 dB, and weighs all levels of Figure 1 alike.

The error can be estimated without the clean image (Stein's unbiased risk estimate, eq. 7),

    E‖x - f(y)‖² = E[ 2σ² tr ∇f(y) + ‖y - f(y)‖² - σ² d ].
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from gahb.data.intensity import unit
from gahb.denoising import noise
from gahb.denoising.levels import INPUT_PSNR, SIGMAS, evaluation_batch


@dataclass(frozen=True)
class Curve:
    """Output PSNR in dB at each of SIGMAS, on training and on held-out images."""

    train: tuple[float, ...]
    test: tuple[float, ...]

    def summary(self) -> dict[str, float]:
        """In dB, averages over σ in [0, 1], `train_psnr`, `test_psnr` and their difference `psnr_gap`, and the same
        difference averaged over input PSNR, `psnr_gap_db`."""
        train, test = average_over_sigma(self.train), average_over_sigma(self.test)
        in_decibels = average_over_decibels(self.train) - average_over_decibels(self.test)
        return {"train_psnr": train, "test_psnr": test, "psnr_gap": train - test, "psnr_gap_db": in_decibels}

    def rows(self) -> list[dict[str, float]]:
        """The curve as a tidy table: sigma, input_psnr, train_psnr, test_psnr."""
        columns = zip(SIGMAS, INPUT_PSNR, *asdict(self).values(), strict=True)
        return [dict(zip(("sigma", "input_psnr", "train_psnr", "test_psnr"), row, strict=True)) for row in columns]


def average_over_sigma(values: tuple[float, ...]) -> float:
    """∫₀¹ values dσ for values at SIGMAS, held constant below the lowest."""
    total = values[-1] * SIGMAS[-1]
    for i in range(len(SIGMAS) - 1):
        total += (values[i] + values[i + 1]) / 2 * (SIGMAS[i] - SIGMAS[i + 1])
    return total


def average_over_decibels(values: tuple[float, ...]) -> float:
    """The mean over input PSNR from 0 to 42 dB of values at SIGMAS, by the trapezoidal rule on the even grid."""
    return (sum(values) - (values[0] + values[-1]) / 2) / (len(values) - 1)


def psnr(clean: Tensor, denoised: Tensor) -> Tensor:
    """10 log₁₀(1/MSE) in dB of images (n, 1, H, W) with range [0, 1]: (n,)."""
    return -10 * (clean - denoised).square().mean(dim=(1, 2, 3)).log10()


def sure(noisy: Tensor, denoised: Tensor, sigma: float, trace: Tensor | float) -> Tensor:
    """Unbiased estimate of ‖x - f(y)‖², summed over pixels, of images (n, 1, H, W): (n,).

    Args:
        noisy: y = x + σz.
        denoised: f(y).
        sigma: σ.
        trace: tr ∇f(y), one for all images or (n,).
    """
    residual = (noisy - denoised).square().sum(dim=(1, 2, 3))
    return 2 * sigma**2 * trace + residual - sigma**2 * noisy[0].numel()


@torch.no_grad()
def mean_psnr(
    denoiser: Callable[[Tensor], Tensor], images: Tensor, count: int, batch_size: int | None = None
) -> tuple[float, ...]:
    """Mean output PSNR in dB at each of SIGMAS.

    Args:
        denoiser: f, in evaluation mode, (B, C, H, W) to the same.
        images: (n, C, H, W) on the denoiser's device, as they are stored or in [0, 1].
        count: noisy images a level; `images` are repeated, each time with other noise, or cut to that number.
        batch_size: noisy images denoised at once; `evaluation_batch` if left out.

    The noise depends on the level and the image's position alone, so it is common to all denoisers.
    """
    means = []
    batch_size = batch_size or evaluation_batch(images.shape[-1])
    for _, clean, noisy in noisy_levels(images, count):
        batches = zip(clean.split(batch_size), noisy.split(batch_size), strict=True)
        means.append(torch.cat([psnr(x, denoiser(y)) for x, y in batches]).mean())
    return tuple(torch.stack(means).tolist())


def noisy_levels(images: Tensor, count: int) -> Iterator[tuple[float, Tensor, Tensor]]:
    """σ, clean and noisy images (count, 1, H, W) in [0, 1] at each of SIGMAS; see `mean_psnr`."""
    device = images.device
    clean = unit(images, torch.arange(count, device=device) % len(images))
    for level, sigma in zip(INPUT_PSNR, SIGMAS, strict=True):
        z = torch.randn(clean.shape, generator=noise.generator("evaluation", level)).to(device)
        yield sigma, clean, clean + sigma * z


def curve(denoiser: nn.Module, train: Tensor, test: Tensor) -> Curve:
    """The PSNR curve on training images and on held-out ones, as many noisy images of each as there are held-out."""
    return Curve(mean_psnr(denoiser, train, len(test)), mean_psnr(denoiser, test, len(test)))
