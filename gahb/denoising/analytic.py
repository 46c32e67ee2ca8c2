"""Denoisers in closed form, to hold trained ones against. They are told the noise level, and the oracles more.

    empirical   f(y) = Σ_i w_i x_i,  w = softmax(-‖y - x_i‖² / 2σ²)        the optimum for a finite set of images
    wiener      f(y) = m + C (C + σ² Id)⁻¹ (y - m)                         the optimum for Gaussian images
    oracle      f(y) = Σ_k λ_k(x) <y, e_k> e_k,  λ_k(x) = a² / (a² + σ²),  a = <x, e_k>      eqs. 11 and 29
    threshold   f(y) = Σ_k S(<y, e_k>) e_k,  S(b) = sign(b) max(|b| - T, 0) or, hard, b where |b| > T;  T = cσ
    tangent     f(y) = p + U Uᵀ (y - p)                       the projection onto an affine space

The oracle's error, Σ_k σ² a² / (a² + σ²) (eq. 30), bounds every shrinkage in its basis from below. Donoho and
Johnstone's universal threshold (1994), c = sqrt(2 log d), comes within a logarithmic factor of it; a c that is tuned on
images, and the mean over shifts, do better (`gahb.denoising.references`). As they do, `threshold` keeps the coarsest
coefficients as they are: the mean of an image would only be biased.

Bases are orthonormal and written as products of small matrices, so that the denoisers have Jacobians like networks.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Denoise = Callable[[Tensor], Tensor]
"""y ↦ f(y), noisy images (B, C, H, W) to denoised ones."""

BLOCK = 4096
"""Training images that `Empirical` looks at in one go."""


class AnalyticDenoiser(ABC):
    """A denoiser for each noise level."""

    @abstractmethod
    def at(self, sigma: float, clean: Tensor) -> Denoise:
        """y ↦ f(y) for y = x + σz. Only an oracle looks at `clean`, the images x behind y, (B, C, H, W)."""


class Empirical(AnalyticDenoiser):
    """The posterior mean when x is one of `images` (N, C, H, W), each with probability 1/N."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def at(self, sigma: float, clean: Tensor) -> Denoise:
        def denoise(y: Tensor) -> Tensor:
            flat = y.flatten(1).double()
            peak = flat.new_full((len(y), 1), -torch.inf)
            total, mean = torch.zeros_like(peak), torch.zeros_like(flat)
            for block in self.images.split(BLOCK):
                x = block.flatten(1).double()
                logits = (flat @ x.T - x.square().sum(dim=1) / 2) / sigma**2  # ‖y‖² is common to all
                before, peak = peak, torch.maximum(peak, logits.detach().amax(dim=1, keepdim=True))
                kept, weights = (before - peak).exp(), (logits - peak).exp()
                total = total * kept + weights.sum(dim=1, keepdim=True)
                mean = mean * kept + weights @ x
            return (mean / total).to(y.dtype).reshape(y.shape)

        return denoise


class Wiener(AnalyticDenoiser):
    """The posterior mean when x is Gaussian with the mean and covariance of `images` (N, C, H, W).

    Directions in which the images do not vary have variance 0, so N images need no more than N - 1 others.
    """

    def __init__(self, images: Tensor) -> None:
        flat = images.flatten(1)
        self.mean = flat.mean(dim=0)
        _, scales, self.directions = torch.linalg.svd(flat - self.mean, full_matrices=False)
        self.variances = scales.square() / len(flat)

    def at(self, sigma: float, clean: Tensor) -> Denoise:
        shrinkage = self.variances / (self.variances + sigma**2)

        def denoise(y: Tensor) -> Tensor:
            coefficients = (y.flatten(1) - self.mean) @ self.directions.T
            return (self.mean + (shrinkage * coefficients) @ self.directions).reshape(y.shape)

        return denoise


class Basis(Protocol):
    """An orthonormal basis of images."""

    def analyse(self, images: Tensor) -> Tensor:
        """Coefficients <x, e_k> of images, (…, H, W) to the same."""

    def synthesise(self, coefficients: Tensor) -> Tensor:
        """The images that have these coefficients."""

    def coarse(self, resolution: int) -> int:
        """Side of the square of coarsest coefficients, in the upper left."""


class Cosines:
    """The discrete cosine transform, type II: the basis in which stationary images are nearly independent."""

    def analyse(self, images: Tensor) -> Tensor:
        matrix = _cosines(images)
        return matrix @ images @ matrix.T

    def synthesise(self, coefficients: Tensor) -> Tensor:
        matrix = _cosines(coefficients)
        return matrix.T @ coefficients @ matrix

    def coarse(self, resolution: int) -> int:
        return 1


class Wavelets:
    """Daubechies' wavelets with two vanishing moments on a torus, over as many levels as the side can be halved."""

    def analyse(self, images: Tensor) -> Tensor:
        coefficients, side = images, images.shape[-1]
        while side % 2 == 0:
            matrix = _wavelet_level(side, images)
            coefficients = _replace_corner(coefficients, matrix @ coefficients[..., :side, :side] @ matrix.T)
            side //= 2
        return coefficients

    def synthesise(self, coefficients: Tensor) -> Tensor:
        images, resolution = coefficients, coefficients.shape[-1]
        side = 2 * self.coarse(resolution)
        while side <= resolution:
            matrix = _wavelet_level(side, images)
            images = _replace_corner(images, matrix.T @ images[..., :side, :side] @ matrix)
            side *= 2
        return images

    def coarse(self, resolution: int) -> int:
        while resolution % 2 == 0:
            resolution //= 2
        return resolution


@dataclass(frozen=True)
class Oracle(AnalyticDenoiser):
    """Shrinkage in a basis by factors that know the clean image."""

    basis: Basis

    def at(self, sigma: float, clean: Tensor) -> Denoise:
        energy = self.basis.analyse(clean).square()
        shrinkage = energy / (energy + sigma**2)
        return lambda y: self.basis.synthesise(shrinkage * self.basis.analyse(y))


@dataclass(frozen=True)
class Threshold(AnalyticDenoiser):
    """Thresholding in a basis.

    Args:
        basis: the basis.
        factor: c of the threshold T = cσ; None means the universal one, sqrt(2 log d) with d pixels.
        hard: keep a coefficient above T as it is, in place of moving it by T towards 0.
    """

    basis: Basis
    factor: float | None = None
    hard: bool = False

    def at(self, sigma: float, clean: Tensor) -> Denoise:
        def denoise(y: Tensor) -> Tensor:
            side = y.shape[-1]
            factor = math.sqrt(2 * math.log(side**2)) if self.factor is None else self.factor
            coefficients = self.basis.analyse(y)
            threshold = torch.full_like(coefficients[0, 0], sigma * factor)
            coarse = self.basis.coarse(side)
            threshold[:coarse, :coarse] = 0
            sizes = coefficients.abs()
            kept = sizes * (sizes > threshold) if self.hard else (sizes - threshold).clamp(min=0)
            return self.basis.synthesise(coefficients.sign() * kept)

        return denoise


class Tangent(AnalyticDenoiser):
    """The projection onto the affine space through `point` (1, C, H, W) along `directions` (k, C, H, W).

    Where images lie on a k-dimensional manifold and σ is below its radius of curvature, the optimum is close to the
    projection onto the tangent space at x, and its error to kσ².
    """

    def __init__(self, point: Tensor, directions: Tensor) -> None:
        self.point = point.flatten()
        self.directions, _ = torch.linalg.qr(directions.flatten(1).T)

    def at(self, sigma: float, clean: Tensor) -> Denoise:
        def denoise(y: Tensor) -> Tensor:
            offset = y.flatten(1) - self.point
            return (self.point + offset @ self.directions @ self.directions.T).reshape(y.shape)

        return denoise


def _cosines(like: Tensor) -> Tensor:
    """Rows cos(π (j + 1/2) k / n), normalised: (n, n)."""
    n = like.shape[-1]
    steps = torch.arange(n, dtype=torch.float64)
    rows = torch.cos(torch.pi / n * torch.outer(steps, steps + 0.5))
    return (rows / rows.norm(dim=1, keepdim=True)).to(like)


def _wavelet_level(n: int, like: Tensor) -> Tensor:
    """One level on n points: n/2 rows of the scaling filter, each shifted by two, and n/2 of the wavelet's."""
    root = math.sqrt(3)
    low = torch.tensor([1 + root, 3 + root, 3 - root, 1 - root], dtype=torch.float64) / (4 * math.sqrt(2))
    high = low.flip(0) * torch.tensor([1, -1, 1, -1])
    matrix = torch.zeros(n, n, dtype=torch.float64)
    for row in range(n // 2):
        columns = (2 * row + torch.arange(4)) % n
        matrix[row].index_add_(0, columns, low)
        matrix[n // 2 + row].index_add_(0, columns, high)
    return matrix.to(like)


def _replace_corner(images: Tensor, corner: Tensor) -> Tensor:
    side = corner.shape[-1]
    top = torch.cat([corner, images[..., :side, side:]], dim=-1)
    return torch.cat([top, images[..., side:, :]], dim=-2)
