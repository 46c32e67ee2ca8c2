import math

import numpy as np
import pytest
import torch
from scipy.fft import dctn
from torch import Tensor

from gahb.denoising.analytic import (
    Basis,
    Cosines,
    Empirical,
    Oracle,
    Tangent,
    Threshold,
    Wavelets,
    Wiener,
)

SIDE = 4
D = SIDE**2
BASES = [Cosines(), Wavelets()]


def images(count: int, seed: int = 0, side: int = SIDE) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 1, side, side, generator=generator, dtype=torch.float64)


def gaussian_images(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images of a Gaussian law whose covariance has eigenvalues 1, 1/2, 1/3, … and the covariance (d, d)."""
    generator = torch.Generator().manual_seed(seed)
    directions, _ = torch.linalg.qr(torch.randn(D, D, generator=torch.Generator().manual_seed(9), dtype=torch.float64))
    scales = (1 / torch.arange(1, D + 1, dtype=torch.float64)).sqrt()
    draws = torch.randn(count, D, generator=generator, dtype=torch.float64)
    covariance = directions @ scales.square().diag() @ directions.T
    return (draws * scales @ directions.T + 0.5).reshape(count, 1, SIDE, SIDE), covariance


def noisy(clean: Tensor, sigma: float, seed: int = 5) -> Tensor:
    return clean + sigma * torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed), dtype=clean.dtype)


def squared_error(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().sum(dim=(1, 2, 3))


def jacobian(denoise, y: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
    return torch.autograd.functional.jacobian(lambda v: denoise(v.reshape(1, 1, SIDE, SIDE)).flatten(), y.flatten())


# empirical


@pytest.mark.parametrize("sigma", [1e-3, 0.1, 1.0, 100.0])
def test_one_training_image_is_returned_at_any_noise_level(sigma: float) -> None:
    x = images(1)
    torch.testing.assert_close(Empirical(x).at(sigma, x)(noisy(images(5, seed=1), sigma)), x.expand(5, -1, -1, -1))


def test_empirical_returns_the_nearest_image_at_low_noise_and_the_mean_at_high() -> None:
    x, y = images(50), images(7, seed=1)
    nearest = torch.cdist(y.flatten(1), x.flatten(1)).argmin(dim=1)
    torch.testing.assert_close(Empirical(x).at(1e-3, y)(y), x[nearest])
    torch.testing.assert_close(Empirical(x).at(1e5, y)(y), x.mean(dim=0).expand_as(y), atol=1e-8, rtol=0)


def test_empirical_does_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = images(50), images(7, seed=1)
    whole = Empirical(x).at(0.3, y)(y)
    weights = (-torch.cdist(y.flatten(1), x.flatten(1)).square() / (2 * 0.3**2)).softmax(dim=1)
    torch.testing.assert_close(whole, (weights @ x.flatten(1)).reshape(y.shape))
    monkeypatch.setattr("gahb.denoising.analytic.BLOCK", 7)
    torch.testing.assert_close(Empirical(x).at(0.3, y)(y), whole)


def test_empirical_jacobian_is_the_posterior_covariance_over_the_noise_variance() -> None:
    x, y, sigma = images(20), images(1, seed=1), 0.4
    flat = x.flatten(1)
    weights = (-(y.flatten(1) - flat).square().sum(dim=1) / (2 * sigma**2)).softmax(dim=0)
    centred = flat - weights @ flat
    covariance = (weights[:, None] * centred).T @ centred  # eq. 9
    torch.testing.assert_close(jacobian(Empirical(x).at(sigma, y), y), covariance / sigma**2)


# Wiener


def test_wiener_is_the_optimal_linear_filter_and_its_error_is_sigma_squared_times_the_trace_of_its_jacobian() -> None:
    x, covariance = gaussian_images(200_000)
    sigma = 0.3
    wiener = Wiener(x).at(sigma, x)
    matrix = jacobian(wiener, x[:1])
    exact = covariance @ torch.linalg.inv(covariance + sigma**2 * torch.eye(D, dtype=torch.float64))
    torch.testing.assert_close(matrix, exact, atol=0.02, rtol=0)
    fresh, _ = gaussian_images(200_000, seed=1)
    y = noisy(fresh, sigma)
    error = squared_error(wiener(y), fresh).mean().item()
    assert error == pytest.approx(sigma**2 * exact.trace().item(), rel=0.01)  # eq. 10
    for seed in range(5):
        change = 0.05 * torch.randn(D, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        other = ((y.flatten(1) - 0.5) @ (exact + change).T + 0.5).reshape(y.shape)
        assert squared_error(other, fresh).mean().item() > error


def test_wiener_of_few_images_stays_in_their_affine_space() -> None:
    x = images(3)
    y = noisy(images(4, seed=1), 0.1)
    span = torch.linalg.qr((x[1:] - x[:1]).flatten(1).T)[0]
    offset = (Wiener(x).at(0.1, y)(y) - x[0]).flatten(1)
    torch.testing.assert_close(offset @ span @ span.T, offset)
    torch.testing.assert_close(Wiener(x[:1]).at(0.1, y)(y), x[:1].expand_as(y))


# fixed bases


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("side", [2, 5, 16, 20])
def test_bases_are_orthonormal(basis: Basis, side: int) -> None:
    x, other = images(3, side=side), images(3, seed=1, side=side)
    coefficients = basis.analyse(x)
    torch.testing.assert_close(basis.synthesise(coefficients), x)
    torch.testing.assert_close((coefficients * basis.analyse(other)).sum(), (x * other).sum())  # Parseval


def test_cosines_are_the_orthonormal_dct() -> None:
    x = images(3, side=12)
    np.testing.assert_allclose(Cosines().analyse(x), dctn(x.numpy(), axes=(2, 3), norm="ortho"), atol=1e-12)


def test_wavelets_do_not_see_linear_images() -> None:
    rows, columns = torch.meshgrid(*[torch.arange(16, dtype=torch.float64)] * 2, indexing="ij")
    one_level = Wavelets().analyse((1 + 2 * rows - 3 * columns)[None, None])[0, 0]
    assert one_level[8:15, 8:15].abs().max() < 1e-10  # where the torus does not cut the ramp
    assert Wavelets().coarse(20) == 5 and Wavelets().coarse(16) == 1


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("sigma", [0.05, 0.5])
def test_oracle_error_is_that_of_equation_30(basis: Basis, sigma: float) -> None:
    x = images(1, side=8).expand(20_000, -1, -1, -1)
    error = squared_error(Oracle(basis).at(sigma, x)(noisy(x, sigma)), x).mean().item()
    energy = basis.analyse(x[:1]).square()
    assert error == pytest.approx((sigma**2 * energy / (energy + sigma**2)).sum().item(), rel=0.02)


@pytest.mark.parametrize("basis", BASES)
def test_the_oracle_bounds_thresholding_which_beats_doing_nothing(basis: Basis) -> None:
    sigma = 0.2
    ramp = torch.linspace(0, 1, 16, dtype=torch.float64)
    x = torch.outer(ramp, ramp).expand(500, 1, 16, 16)
    y = noisy(x, sigma)
    errors = [squared_error(kind(basis).at(sigma, x)(y), x).mean().item() for kind in (Oracle, Threshold)]
    assert errors[0] < errors[1] < squared_error(y, x).mean().item()


def test_threshold_is_soft_and_universal() -> None:
    coefficients = torch.zeros(1, 1, 16, 16, dtype=torch.float64)
    level = 0.1 * math.sqrt(2 * math.log(256))
    coefficients[0, 0, 0, 0], coefficients[0, 0, 3, 4], coefficients[0, 0, 7, 7] = 0.01, -5 * level, 0.9 * level
    y = Cosines().synthesise(coefficients)
    kept = Cosines().analyse(Threshold(Cosines()).at(0.1, y)(y))
    coefficients[0, 0, 3, 4], coefficients[0, 0, 7, 7] = -4 * level, 0
    torch.testing.assert_close(kept, coefficients)


def test_a_threshold_of_ones_own_is_hard_or_soft() -> None:
    coefficients = torch.zeros(1, 1, 16, 16, dtype=torch.float64)
    coefficients[0, 0, 3, 4], coefficients[0, 0, 7, 7] = -0.5, 0.19
    for hard, kept in ((True, -0.5), (False, -0.3)):
        y = Cosines().synthesise(coefficients)
        found = Cosines().analyse(Threshold(Cosines(), 2.0, hard).at(0.1, y)(y))
        assert found[0, 0, 3, 4].item() == pytest.approx(kept) and found[0, 0, 7, 7].abs() < 1e-12


# tangent


def test_tangent_is_a_projection_whose_error_is_its_dimension_times_the_noise_variance() -> None:
    point, directions, sigma = images(1), images(3, seed=1), 0.3
    tangent = Tangent(point, directions)
    x = (point + 2 * directions[:1] - directions[2:]).expand(50_000, -1, -1, -1)
    torch.testing.assert_close(tangent.at(sigma, x)(x), x)
    assert squared_error(tangent.at(sigma, x)(noisy(x, sigma)), x).mean().item() == pytest.approx(
        3 * sigma**2, rel=0.02
    )
    matrix = jacobian(tangent.at(sigma, x), point)
    torch.testing.assert_close(matrix @ matrix, matrix)
    assert matrix.trace().item() == pytest.approx(3)
