"""The best bandlet basis of an image: squares, each with its own geometry, chosen by what they cost (§3.2).

An image is cut into squares, a square into four, and so on while their side is even and above 5. On a square the image
is written in one of these orthonormal bases:

    cosines in both directions, or polynomials;
    edged:  { p_k·m, p_k·(1 - m) }, orthonormalised (QR) in the order of the degree of p_k,

where m is a half plane beyond a straight line, rounded to pixels and blurred 2×2 as the contours of C^α images are
(`gahb.data.c_alpha`). So a few functions that vary slowly along an edge and suddenly across it stand for the edge,
and harmonics on each side for the two backgrounds: bandlets in the space of pixels (wedgelets with harmonics on each
side). Lines have slopes -1 … 1 by either axis and offsets half a pixel apart: their number is a power of the side.

The best basis for a threshold T has the least cost Σ_k min(<x, e_k>², T²) = ‖x - x_M‖² + M·T² (eq. 12), found
from small squares to large (Peyré & Mallat 2008). Chosen for the noisy image with T = cσ, the coefficients above T are
the estimator of Dossal, Le Pennec & Mallat (2011); chosen for the clean one with T = σ, shrinkage by a²/(a² + σ²) in it
is the oracle (eq. 30).

On squares of more than 10 pixels a side the edged families are cut after TERMS functions, and what they leave of an
image counts as error. Each channel of a colour image is an image of its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from gahb.denoising.analytic import AnalyticDenoiser, Denoise

SMALLEST, COMPLETE, LARGEST = 5, 10, 25
"""Sides of squares: those up to the first are not cut; edges cross those up to the last, and have complete bases up to
the second."""

TERMS = 64
"""Functions of an edged family on larger squares."""

AT_ONCE = 1 << 20
"""Numbers that are worked on together."""

SMOOTH = 2
"""How many bases a square has that no edge crosses; they come first."""

CUT = -1
"""In place of a basis: the square is cut into four, or is none."""


@dataclass(frozen=True)
class BestBasis:
    """An orthonormal system for each of n images.

    Args:
        chosen: side of squares, descending → number of the basis of each, CUT where it is not used: (n, rows, columns).
    """

    chosen: dict[int, Tensor]

    def analyse(self, images: Tensor) -> Tensor:
        """Coefficients <x, e_k> of images (…, H, W), in the place of the squares they belong to, 0 where a square has
        fewer than pixels: of the same shape."""
        return self._each(images, forward=True)

    def synthesise(self, coefficients: Tensor) -> Tensor:
        """The images that have these coefficients."""
        return self._each(coefficients, forward=False)

    def _each(self, images: Tensor, forward: bool) -> Tensor:
        result = torch.zeros_like(images).flatten(0, -3)
        for side, chosen in self.chosen.items():
            used = chosen != CUT
            if used.any():
                found = _change(_squares(images, side)[used], chosen[used], forward)
                _squares(result, side)[used] = found
        return result.view_as(images)


def best_basis(images: Tensor, threshold: float) -> BestBasis:
    """The best basis of each image (…, H, W), every channel by itself, for a threshold T."""
    costs, chosen = None, {}
    for side in reversed(sides(images.shape[-1])):
        own, numbers = _cheapest(_squares(images, side), threshold)
        if costs is not None:
            cut = costs.unflatten(1, (-1, 2)).unflatten(3, (-1, 2)).sum(dim=(2, 4))
            numbers[cut < own] = CUT
            own = torch.minimum(cut, own)
        costs, chosen[side] = own, numbers
    kept, squares = {}, torch.ones_like(chosen[images.shape[-1]], dtype=torch.bool)
    for side in sides(images.shape[-1]):
        kept[side] = chosen[side].where(squares, CUT)
        squares = squares & (chosen[side] == CUT)
        squares = squares.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    return BestBasis(kept)


def sides(resolution: int) -> list[int]:
    """Sides of squares, descending."""
    found = [resolution]
    while found[-1] % 2 == 0 and found[-1] > SMALLEST:
        found.append(found[-1] // 2)
    return found


@dataclass(frozen=True)
class BandletThreshold(AnalyticDenoiser):
    """The coefficients above T = cσ in the best basis of the noisy image for T."""

    factor: float = 3.0

    def at(self, sigma: float, clean: Tensor) -> Denoise:
        def denoise(y: Tensor) -> Tensor:
            basis = best_basis(y, self.factor * sigma)
            coefficients = basis.analyse(y)
            return basis.synthesise(coefficients * (coefficients.abs() > self.factor * sigma))

        return denoise


class BandletOracle(AnalyticDenoiser):
    """Shrinkage by factors that know the clean image, in its best basis for T = σ."""

    def at(self, sigma: float, clean: Tensor) -> Denoise:
        basis = best_basis(clean, sigma)
        energy = basis.analyse(clean).square()
        shrinkage = energy / (energy + sigma**2)
        return lambda y: basis.synthesise(shrinkage * basis.analyse(y))


def oracle_error(images: Tensor, sigma: float) -> Tensor:
    """E‖x - f(y)‖² of `BandletOracle` at each image (n, C, H, W): eq. 30 and what lies outside the basis; (n,)."""
    energy = best_basis(images, sigma).analyse(images).square().flatten(1)
    outside = images.square().flatten(1).sum(dim=1) - energy.sum(dim=1)
    return (sigma**2 * energy / (energy + sigma**2)).sum(dim=1) + outside.clamp(min=0)


def edged(side: int, like: Tensor) -> Tensor:
    """The bases with an edge, (how many, functions, side²), orthonormal rows; none on squares that are too large."""
    return _edged(side, like.dtype, like.device)


@lru_cache
def smooth(side: int) -> Tensor:
    """Cosines and polynomials of one variable, (SMOOTH, side, side) float64, orthonormal rows."""
    steps = torch.arange(side, dtype=torch.float64)
    cosines = torch.cos(torch.pi / side * torch.outer(steps, steps + 0.5))
    polynomials, _ = np.linalg.qr(np.polynomial.legendre.legvander(np.linspace(-1, 1, side), side - 1))
    return torch.stack([cosines / cosines.norm(dim=1, keepdim=True), torch.from_numpy(polynomials.T)])


@lru_cache
def _edged(side: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    if side > LARGEST:
        return torch.empty(0, 1, side**2, dtype=dtype, device=device)
    terms = side**2 if side <= COMPLETE else TERMS
    degrees = sorted(np.ndindex(side, side), key=lambda ij: (sum(ij), abs(ij[0] - ij[1])))[: -(-terms // 2)]
    lines = smooth(side)[1]
    functions = torch.stack([torch.outer(lines[i], lines[j]).flatten() for i, j in degrees], dim=1)
    found = []
    for masks in half_planes(side).flatten(1).split(128):
        both = torch.stack([masks, 1 - masks], dim=-1)[:, :, None, :]
        family = (both * functions[:, :, None]).flatten(2)[:, :, :terms]
        found.append(torch.linalg.qr(family)[0].mT.to(dtype=dtype, device=device))
    return torch.cat(found).contiguous()


def half_planes(side: int) -> Tensor:
    """All different half planes that both sides have pixels of, as contours of C^α images would cut them: 1 below or to
    the right of the line, (how many, side, side) float64."""
    centred = torch.arange(-1, side, dtype=torch.float64) - (side - 1) / 2
    slopes = torch.linspace(-1, 1, 2 * (side // 2) + 1, dtype=torch.float64)
    offsets = torch.arange(-side, side + 0.5, 0.5 if side <= COMPLETE else 1, dtype=torch.float64)
    edges = (slopes[:, None, None] * centred + offsets[:, None] + (side - 1) / 2 + 0.01).round().flatten(0, 1)
    whole = (torch.arange(-1, side)[:, None] >= edges[:, None, :]).double()
    blurred = (whole[:, 1:, 1:] + whole[:, :-1, 1:] + whole[:, 1:, :-1] + whole[:, :-1, :-1]) / 4
    planes = torch.cat([blurred, blurred.mT]).flatten(1).unique(dim=0)
    return planes[(planes == 0).any(dim=1) & (planes == 1).any(dim=1)].unflatten(1, (side, side))


def _squares(images: Tensor, side: int) -> Tensor:
    """A view of images (…, H, W) as squares (n, rows, columns, side, side)."""
    cut = images.flatten(0, -3).unflatten(-1, (-1, side)).unflatten(1, (-1, side))
    return cut.transpose(2, 3)


def _cheapest(squares: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """The least cost of each square (n, rows, columns, side, side) and the number of its basis, (n, rows, columns)."""
    side = squares.shape[-1]
    flat = squares.reshape(-1, side**2)
    gain = flat.new_full((len(flat),), -1)
    number = torch.zeros_like(gain, dtype=torch.int64)
    first = 0
    for coefficients in _in_every_basis(flat, side):
        gains, numbers = (coefficients.square_() - threshold**2).clamp_(min=0).sum(dim=-1).max(dim=1)
        number = (first + numbers).where(gains > gain, number)
        gain = torch.maximum(gain, gains)
        first += coefficients.shape[1]
    shape = squares.shape[:3]
    return (flat.square().sum(dim=1) - gain).view(shape), number.view(shape)


def _in_every_basis(flat: Tensor, side: int) -> Iterator[Tensor]:
    """Coefficients of squares (n, side²) in some bases at a time, (n, bases, functions)."""
    for lines in smooth(side).to(flat):
        yield (lines @ flat.view(-1, side, side) @ lines.T).flatten(1)[:, None]
    bases = edged(side, flat)
    if not len(bases):
        return
    for part in bases.split(max(1, AT_ONCE // (len(flat) * bases.shape[1]))):
        yield (flat @ part.flatten(0, 1).T).unflatten(1, part.shape[:2])


def _change(squares: Tensor, numbers: Tensor, forward: bool) -> Tensor:
    """From pixels (n, side, side) to coefficients in the basis of each square, or back."""
    side = squares.shape[-1]
    changed = torch.empty_like(squares)
    for number, lines in enumerate(smooth(side).to(squares)):
        those = numbers == number
        lines = lines if forward else lines.T
        changed[those] = lines @ squares[those] @ lines.T
    bases = edged(side, squares)
    terms = bases.shape[1]
    for part in (numbers >= SMOOTH).nonzero().flatten().split(max(1, AT_ONCE // (terms * side**2))):
        vectors, flat = bases[numbers[part] - SMOOTH], squares[part].flatten(1)
        if forward:
            new = torch.zeros_like(flat)
            new[:, :terms] = torch.einsum("nki,ni->nk", vectors, flat)
        else:
            new = torch.einsum("nki,nk->ni", vectors, flat[:, :terms])
        changed[part] = new.unflatten(1, (side, side))
    return changed
