"""How far a denoiser is from the optimum, and what that says of its density (eq. 5):

    KL(p ‖ p_f) ≤ ∫ (MSE(f, σ²) - MSE(f*, σ²)) σ⁻³ dσ,    MSE(f, σ²) = E ‖x - f(x + σz)‖²,

in nats. The integral is ∫ (MSE(f, σ²) - MSE(f*, σ²)) σ⁻² d(log σ), by the trapezoidal rule in log σ. On a
grid of σ it is the part of the bound that lies within the grid.
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
        images: (n, 1, H, W) uint8.
        count: noisy images a level.
    """
    errors = []
    for sigma, clean, noisy in noisy_levels(images, count):
        batches = zip(clean.split(batch_size), noisy.split(batch_size), strict=True)
        errors.append(torch.cat([(x - at(sigma, x)(y)).square().sum(dim=(1, 2, 3)) for x, y in batches]))
    return torch.stack(errors)


def kl_bound(sigmas: Sequence[float], excess: ArrayLike) -> float:
    """∫ excess σ⁻³ dσ for an excess MSE (a sum over pixels) at each of `sigmas`, in any order."""
    sigma = np.asarray(sigmas, dtype=float)
    order = np.argsort(sigma)
    return float(np.trapezoid((np.asarray(excess, dtype=float) / sigma**2)[order], np.log(sigma[order])))
