import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio
from torch import nn

from gahb.denoising import psnr
from gahb.denoising.psnr import INPUT_PSNR, SIGMAS


def test_psnr_is_scikit_images() -> None:
    rng = np.random.default_rng(0)
    clean, noisy = rng.uniform(0, 1, (2, 3, 1, 8, 8))
    ours = psnr.psnr(torch.from_numpy(clean), torch.from_numpy(noisy))
    theirs = [peak_signal_noise_ratio(a[0], b[0], data_range=1.0) for a, b in zip(clean, noisy, strict=True)]
    np.testing.assert_allclose(ours, theirs)


def test_the_identity_has_output_psnr_equal_to_input_psnr() -> None:
    images = torch.randint(0, 256, (64, 1, 16, 16), dtype=torch.uint8)
    found = psnr.mean_psnr(nn.Identity(), images, 64)
    assert found == pytest.approx(INPUT_PSNR, abs=0.1)


def test_a_denoiser_that_knows_the_image_has_no_error() -> None:
    image = torch.full((1, 1, 8, 8), 51, dtype=torch.uint8)
    found = psnr.mean_psnr(lambda y: torch.full_like(y, 0.2 + 1e-3), image, 5)  # type: ignore[arg-type]
    assert found == pytest.approx([60.0] * len(SIGMAS), abs=1e-3)


def test_repeated_images_get_fresh_noise_and_batches_do_not_matter() -> None:
    image = torch.randint(0, 256, (1, 1, 8, 8), dtype=torch.uint8)
    one = psnr.mean_psnr(nn.Identity(), image, 1)
    many = psnr.mean_psnr(nn.Identity(), image, 50)
    assert np.abs(np.subtract(many, INPUT_PSNR)).max() < np.abs(np.subtract(one, INPUT_PSNR)).max()
    assert psnr.mean_psnr(nn.Identity(), image, 50, batch_size=7) == pytest.approx(many, abs=1e-5)


def test_average_over_sigma_is_exact_for_linear_functions_above_the_lowest_level() -> None:
    assert psnr.average_over_sigma(tuple([3.0] * len(SIGMAS))) == pytest.approx(3)
    low = SIGMAS[-1]
    linear = tuple(2 * s for s in SIGMAS)
    assert psnr.average_over_sigma(linear) == pytest.approx(1 - low**2 + 2 * low * low)


def test_one_gap_is_uniform_in_sigma_and_the_other_in_decibels() -> None:
    fine = np.linspace(0, 42, 100_001)  # input PSNR
    gap = np.interp(fine, INPUT_PSNR, [0.3 * p for p in INPUT_PSNR])  # that of a model which copies at weak noise
    curve = psnr.Curve(tuple(20 + 0.3 * p for p in INPUT_PSNR), tuple([20.0] * 15))
    assert curve.summary()["psnr_gap_db"] == pytest.approx(gap.mean()) == pytest.approx(6.3)
    sigma = 10 ** (-fine / 20)
    in_sigma = np.trapezoid(gap[::-1], sigma[::-1]) + gap[-1] * sigma[-1]
    assert curve.summary()["psnr_gap"] == pytest.approx(in_sigma, rel=0.05) and in_sigma < 3


def test_levels_are_figure_1s() -> None:
    assert INPUT_PSNR[0] == 0 and INPUT_PSNR[-1] == 42 and len(INPUT_PSNR) == 15
    assert SIGMAS[0] == 1 and SIGMAS[-1] == pytest.approx(0.0079, abs=1e-4)
    assert all(-20 * math.log10(s) == pytest.approx(p) for s, p in zip(SIGMAS, INPUT_PSNR, strict=True))


def test_gap_is_train_minus_test() -> None:
    curve = psnr.Curve(tuple([20.0] * 15), tuple([17.5] * 15))
    expected = {"train_psnr": 20, "test_psnr": 17.5, "psnr_gap": 2.5, "psnr_gap_db": 2.5}
    assert curve.summary() == pytest.approx(expected)
    assert curve.rows()[0] == {"sigma": 1.0, "input_psnr": 0, "train_psnr": 20.0, "test_psnr": 17.5}


def test_sure_is_the_error_in_expectation() -> None:
    # the Wiener filter of Gaussian images x = B w, f(y) = C (C + σ²)⁻¹ y with C = B Bᵀ, has a constant trace
    torch.manual_seed(0)
    sigma, d, n = 0.3, 16, 40_000
    mix = torch.randn(d, d, dtype=torch.float64) / d
    covariance = mix @ mix.T
    wiener = covariance @ torch.linalg.inv(covariance + sigma**2 * torch.eye(d))
    clean = (torch.randn(n, d, dtype=torch.float64) @ mix.T).view(n, 1, 4, 4)
    noisy = clean + sigma * torch.randn_like(clean)
    denoised = (noisy.flatten(1) @ wiener.T).view_as(noisy)
    errors = (clean - denoised).square().sum(dim=(1, 2, 3))
    estimate = psnr.sure(noisy, denoised, sigma, wiener.trace())
    spread = (estimate - errors).std() / n**0.5
    assert abs(estimate.mean() - errors.mean()) < 4 * spread < 0.02 * errors.mean()
    # and the optimum's error is σ² tr ∇f (eq. 8)
    assert errors.mean().item() == pytest.approx(sigma**2 * wiener.trace().item(), rel=0.02)
