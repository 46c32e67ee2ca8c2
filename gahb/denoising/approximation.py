"""How fast an image is approximated by few terms of a basis (§3.1, appendix D.4).

With coefficients a_k = <x, e_k> in descending order of |a_k| and x_M the sum of the first M terms,

    ‖x - x_M‖² = ‖x‖² - Σ_{k ≤ M} a_k².    If a_k² ~ k^-(α+1), then ‖x - x_M‖² ~ M^-α    (eqs. 13, 32 and 33).

Exponents are slopes in log-log, negated, by least squares over a window.
"""

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from gahb.denoising.bandlets import best_basis

THRESHOLDS = tuple(10 ** (-level / 20) for level in range(-6, 49, 6))
"""T of the best bases among which each M finds its own."""


def sorted_energy(coefficients: Tensor) -> Tensor:
    """a_k² of each image's coefficients (n, …), descending: (n, d) float64."""
    return coefficients.double().flatten(1).square().sort(dim=1, descending=True).values


def errors(images: Tensor, energy: Tensor) -> Tensor:
    """‖x - x_M‖² for M = 1 … d of images (n, …) whose sorted energies are (n, d)."""
    total = images.double().flatten(1).square().sum(dim=1, keepdim=True)
    return (total - energy.cumsum(dim=1)).clamp(min=0)


def bandlet_errors(images: Tensor) -> Tensor:
    """The least ‖x - x_M‖² for M = 1 … d over the best bandlet bases of each image (n, C, H, W), (n, d)."""
    found = [errors(images, sorted_energy(best_basis(images, t).analyse(images))) for t in THRESHOLDS]
    return torch.stack(found).amin(dim=0)


def exponent(terms: ArrayLike, values: ArrayLike, window: tuple[float, float]) -> float:
    """p of values ~ terms^-p for terms within a window; NaN where it holds fewer than two positive values."""
    x, y = np.asarray(terms, float), np.asarray(values, float)
    within = (x >= window[0]) & (x <= window[1]) & (y > 0)
    if within.sum() < 2:
        return float("nan")
    return float(-np.polyfit(np.log(x[within]), np.log(y[within]), 1)[0])
