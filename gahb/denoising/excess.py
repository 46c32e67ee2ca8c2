"""How far a denoiser is above another, over all noise levels: on a grid of σ,

    ∫ (MSE(f, σ²) - MSE(f°, σ²)) σ⁻³ dσ,    MSE(f, σ²) = E ‖x - f(x + σz)‖²,

in nats, by the trapezoidal rule in log σ. With f° = f*, the optimum of the law, and over all σ this bounds KL(p ‖ p_f)
(eq. 5). With another f°, such as the best of several denoisers at each σ, it is their excess on the grid and bounds
nothing: f° is above f*, and what lies beyond the grid is left out, which has no end for a homogeneous f, whose MSE
grows like σ² as σ → ∞.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from gahb.denoising.psnr import noisy_levels

At = Callable[[float, Tensor], Callable[[Tensor], Tensor]]
"""(σ, clean images) ↦ the denoiser, as `AnalyticDenoiser.at`."""


@torch.no_grad()
def squared_errors(at: At, images: Tensor, count: int, batch_size: int = 512) -> Tensor:
    """‖x - f(x + σz)‖² of each noisy image at each of SIGMAS, (levels, count); images and noise are those of the PSNR
    curve (`psnr.mean_psnr`).

    Args:
        at: the denoiser at σ for clean images x.
        images: stored images (n, C, H, W).
        count: noisy images a level.
    """
    errors = []
    for sigma, clean, noisy in noisy_levels(images, count):
        batches = zip(clean.split(batch_size), noisy.split(batch_size), strict=True)
        errors.append(torch.cat([(x - at(sigma, x)(y)).square().sum(dim=(1, 2, 3)) for x, y in batches]))
    return torch.stack(errors)


def excess_in_nats(sigmas: Sequence[float], excess: ArrayLike) -> float:
    """∫ excess σ⁻³ dσ for an excess of MSE (a sum over pixels) at each of `sigmas`, in any order."""
    sigma = np.asarray(sigmas, dtype=float)
    order = np.argsort(sigma)
    return float(np.trapezoid((np.asarray(excess, dtype=float) / sigma**2)[order], np.log(sigma[order])))
