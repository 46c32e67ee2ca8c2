import math

import pytest
import torch
from torch import Tensor

from gahb.data.c_alpha import CAlpha
from gahb.data.intensity import unit
from gahb.denoising.analytic import Cosines, Threshold
from gahb.denoising.approximation import bandlet_errors, exponent
from gahb.denoising.bandlets import (
    CUT,
    TERMS,
    BandletOracle,
    BandletThreshold,
    best_basis,
    edged,
    half_planes,
    oracle_error,
    sides,
    smooth,
)


def c_alpha(alpha: float, side: int, count: int) -> Tensor:
    return unit(torch.from_numpy(CAlpha(alpha).chunk(side, 0)[:count]))[:, None]


def noisy(clean: Tensor, sigma: float, seed: int = 5) -> Tensor:
    return clean + sigma * torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed), dtype=clean.dtype)


def squared_error(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().sum(dim=(1, 2, 3))


def two_regions(side: int, slope: float) -> Tensor:
    """Two linear regions with a straight edge through the middle, drawn as contours of C^α images are."""
    rows, columns = torch.meshgrid(*[torch.arange(side, dtype=torch.float64)] * 2, indexing="ij")
    edge = (slope * (torch.arange(-1, side) - (side - 1) / 2) + (side - 1) / 2 + 0.01).round()
    beyond = (torch.arange(-1, side)[:, None] >= edge).double()
    mask = (beyond[1:, 1:] + beyond[:-1, 1:] + beyond[1:, :-1] + beyond[:-1, :-1]) / 4
    return (mask * (0.5 + 0.02 * rows) + (1 - mask) * (0.1 + 0.01 * columns))[None, None]


@pytest.mark.parametrize("side", [4, 5, 8, 10, 20])
def test_every_basis_of_a_square_is_orthonormal_and_complete_on_small_ones(side: int) -> None:
    bases = edged(side, torch.zeros(1, dtype=torch.float64))
    functions = side**2 if side <= 10 else TERMS
    assert bases.shape == (len(half_planes(side)), functions, side**2)
    torch.testing.assert_close(bases @ bases.mT, torch.eye(functions, dtype=torch.float64).expand(len(bases), -1, -1))
    for lines in smooth(side):
        torch.testing.assert_close(lines @ lines.T, torch.eye(side, dtype=torch.float64))


def test_sides_end_where_they_cannot_be_halved() -> None:
    assert [sides(n) for n in (80, 20, 16, 7)] == [[80, 40, 20, 10, 5], [20, 10, 5], [16, 8, 4], [7]]


@pytest.mark.parametrize("side", [16, 20])
def test_analysis_then_synthesis_is_the_identity_where_bases_are_complete(side: int) -> None:
    x = torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    basis = best_basis(x, 1e-3)  # too fine for anything but complete bases
    coefficients = basis.analyse(x)
    torch.testing.assert_close(basis.synthesise(coefficients), x)
    torch.testing.assert_close(coefficients.square().sum(), x.square().sum())
    other = best_basis(c_alpha(3.0, side, 9).double(), 0.1)  # with large squares: a projection
    projected = other.synthesise(other.analyse(x))
    torch.testing.assert_close(other.synthesise(other.analyse(projected)), projected)
    assert (squared_error(projected, x) > 0).any()


@pytest.mark.parametrize("slope", [0.0, 0.5, 1.0, 2.5])
def test_two_linear_regions_with_a_straight_edge_are_a_few_bandlets(slope: float) -> None:
    x = two_regions(20, slope) if slope <= 1 else two_regions(20, 1 / slope).mT
    basis = best_basis(x, 1e-4)
    coefficients = basis.analyse(x)
    few = coefficients * (coefficients.abs() > 1e-9)
    assert (few != 0).sum() <= 6  # 1, row and column on either side
    torch.testing.assert_close(basis.synthesise(few), x)


def test_the_best_basis_costs_no_more_than_one_that_is_never_cut_or_always() -> None:
    x = c_alpha(2.0, 20, 8)

    def cost(images: Tensor, threshold: float) -> Tensor:
        coefficients = best_basis(images, threshold).analyse(images)
        kept = coefficients.abs() > threshold
        left = images.square().sum(dim=(1, 2, 3)) - (coefficients.square() * kept).sum(dim=(1, 2, 3))
        return left + threshold**2 * kept.sum(dim=(1, 2, 3))

    for threshold in (0.03, 0.3):
        best = cost(x, threshold)
        cosines = smooth(20)[0].float()
        whole = (cosines @ x @ cosines.T).square().clamp(max=threshold**2).sum(dim=(1, 2, 3))
        quarters = x.unfold(2, 10, 10).unfold(3, 10, 10).reshape(-1, 1, 10, 10)  # each with its own best basis
        cut = cost(quarters, threshold).view(8, 4).sum(dim=1)
        assert (best <= whole + 1e-4).all() and (best <= cut + 1e-4).all()


def test_a_square_is_cut_where_geometry_is_and_left_whole_where_there_is_none() -> None:
    flat, bent = torch.full((1, 1, 20, 20), 0.5), torch.zeros(1, 1, 20, 20)
    bent[0, 0, :7, :7] = 1.0
    assert (best_basis(flat, 0.1).chosen[20] != CUT).all() and (best_basis(bent, 0.1).chosen[20] == CUT).all()


@pytest.mark.parametrize("sigma", [0.03, 0.2])
def test_the_oracles_error_is_the_expected_one_and_bounds_every_threshold_in_its_basis(sigma: float) -> None:
    x = c_alpha(2.0, 20, 1).expand(400, -1, -1, -1)
    y = noisy(x, sigma)
    error = squared_error(BandletOracle().at(sigma, x)(y), x).mean().item()
    assert error == pytest.approx(oracle_error(x[:1], sigma).item(), rel=0.05)
    basis = best_basis(x, sigma)
    for factor in (1.0, 2.0, 3.0):
        coefficients = basis.analyse(y)
        thresholded = basis.synthesise(coefficients * (coefficients.abs() > factor * sigma))
        assert squared_error(thresholded, x).mean().item() > error


def test_the_estimator_lies_between_the_oracle_and_the_universal_threshold_in_cosines() -> None:
    x, sigma = c_alpha(3.0, 20, 32), 0.05
    y = noisy(x, sigma)
    ordered = (BandletOracle(), BandletThreshold(), Threshold(Cosines()))
    errors = [squared_error(denoiser.at(sigma, x)(y), x).mean().item() for denoiser in ordered]
    assert errors == sorted(errors) and errors[2] > 2 * errors[0]


def test_on_c_alpha_images_the_error_after_m_terms_decays_faster_the_more_regular_they_are() -> None:
    # α for geometric C^α images and M → ∞; the backgrounds that Algorithm 2 draws are only so regular that it is α - 1
    for alpha in (1.0, 2.0, 3.0):
        errors = bandlet_errors(c_alpha(alpha, 80, 4)).mean(dim=0)
        assert alpha - 1 < exponent(torch.arange(1, 6401), errors, (40, 640)) < alpha


def test_an_exponent_is_that_of_a_power_law() -> None:
    k = torch.arange(1, 101, dtype=torch.float64)
    assert exponent(k, 3 * k**-2.5, (10, 100)) == pytest.approx(2.5)
    assert math.isnan(exponent(k, k, (200, 300)))
