import math

import numpy as np
import pytest
import torch

from gahb.denoising.analytic import Wiener
from gahb.denoising.excess import excess_in_nats, squared_errors
from gahb.denoising.psnr import SIGMAS, mean_psnr


def test_over_all_noise_the_excess_of_a_misspecified_wiener_filter_is_the_divergence_of_the_two_gaussians() -> None:
    # The filter for variance b on images of variance a: error Σ (w - w')² (a + σ²) above the optimum's.
    a, b = np.array([1.0, 0.3, 0.02]), np.array([0.5, 0.4, 0.1])
    sigmas = np.geomspace(1e-4, 1e4, 2000)
    shrink, shrink_optimal = (c / (c + sigmas[:, None] ** 2) for c in (b, a))
    excess = ((shrink - shrink_optimal) ** 2 * (a + sigmas[:, None] ** 2)).sum(axis=1)
    divergence = (a / b - 1 - np.log(a / b)).sum() / 2
    assert excess_in_nats(sigmas.tolist(), excess) == pytest.approx(divergence, rel=1e-5)
    assert excess_in_nats(sigmas[::-1].tolist(), excess[::-1]) == pytest.approx(divergence, rel=1e-5)


def test_the_integral_is_exact_where_the_integrand_is_constant_in_log_sigma() -> None:
    assert excess_in_nats(SIGMAS, [3 * s**2 for s in SIGMAS]) == pytest.approx(3 * math.log(SIGMAS[0] / SIGMAS[-1]))
    assert excess_in_nats(SIGMAS, [0.0] * len(SIGMAS)) == 0


def test_measured_on_gaussian_images_the_excess_is_the_integral_of_the_known_errors() -> None:
    torch.manual_seed(0)
    variances = 0.03 * 0.8 ** torch.arange(16.0)
    images = 0.5 + variances.sqrt() * torch.randn(20_000, 16)
    images = (255 * images.clamp(0, 1)).round().to(torch.uint8).reshape(-1, 1, 4, 4)
    right, wrong = (Wiener(images.float() / 255) for _ in range(2))
    wrong.variances = wrong.variances * 3
    errors = [squared_errors(wiener.at, images, len(images)).mean(dim=1) for wiener in (right, wrong)]
    a, b = right.variances.numpy(), wrong.variances.numpy()
    exact = [((b / (b + s**2) - a / (a + s**2)) ** 2 * (a + s**2)).sum() for s in SIGMAS]
    assert excess_in_nats(SIGMAS, errors[1] - errors[0]) == pytest.approx(excess_in_nats(SIGMAS, exact), rel=0.05)


def test_squared_errors_give_the_psnr_curve() -> None:
    images = torch.randint(0, 256, (30, 1, 8, 8), dtype=torch.uint8)
    errors = squared_errors(lambda sigma, clean: torch.nn.Identity(), images, 50, batch_size=7)
    assert errors.shape == (len(SIGMAS), 50)
    psnr = (-10 * (errors / 64).log10()).mean(dim=1)
    assert psnr.tolist() == pytest.approx(mean_psnr(torch.nn.Identity(), images, 50), abs=1e-4)
