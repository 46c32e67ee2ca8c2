import pytest
import torch
from torch import Tensor

from gahb.data.c_alpha import CAlpha
from gahb.data.intensity import unit
from gahb.denoising.analytic import Cosines, Threshold, Wavelets, Wiener
from gahb.denoising.references import DENOISERS, SHIFT, CycleSpinning, Tuned, tuned_threshold


def c_alpha(count: int, side: int = 16) -> Tensor:
    return unit(torch.from_numpy(CAlpha(2.0).chunk(side, 0)[:count]))[:, None]


def noisy(clean: Tensor, sigma: float) -> Tensor:
    return clean + sigma * torch.randn(clean.shape, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("name", DENOISERS)
def test_every_registered_denoiser_keeps_shape_and_type_in_gray_and_colour(name: str) -> None:
    for x in (c_alpha(6, side=8), c_alpha(6, side=8).expand(-1, 3, -1, -1)):
        denoised = DENOISERS[name](x).at(0.1, x[:2])(noisy(x[:2], 0.1))
        assert denoised.shape == x[:2].shape and denoised.dtype == torch.float32


def test_spinning_does_nothing_to_a_denoiser_that_commutes_with_shifts_and_makes_the_others_commute() -> None:
    x = c_alpha(5, side=8)
    y = noisy(x, 0.1)
    stationary = Wiener(torch.cat([x.roll((i, j), dims=(2, 3)) for i in range(8) for j in range(8)]))
    torch.testing.assert_close(CycleSpinning(stationary, 5).at(0.1, x)(y), stationary.at(0.1, x)(y))
    spun, alone = CycleSpinning(Threshold(Wavelets()), 8), Threshold(Wavelets())  # 8 times SHIFT is where it began
    both = [denoiser.at(0.1, x)(y).roll(SHIFT, dims=(2, 3)) - denoiser.at(0.1, x)(y.roll(SHIFT, dims=(2, 3)))
            for denoiser in (spun, alone)]  # fmt: skip
    assert both[0].abs().max() < 1e-5 < both[1].abs().max()


@pytest.mark.parametrize("sigma", [0.02, 0.2])
def test_a_tuned_threshold_is_the_best_on_its_training_images_and_better_than_the_universal_one(sigma: float) -> None:
    x = c_alpha(32)
    for basis in (Cosines(), Wavelets()):
        tuned = tuned_threshold(basis, x)
        assert isinstance(tuned, Tuned)
        error = tuned.error(tuned, sigma)
        assert error == min(tuned.error(denoiser, sigma) for denoiser in tuned.denoisers)
        assert error < tuned.error(Threshold(basis), sigma)


def test_on_fresh_images_the_oracle_is_ahead_of_the_tuned_threshold_in_each_basis() -> None:
    x, sigma = c_alpha(64), 0.1
    train, fresh = x[:32], x[32:]
    y = noisy(fresh, sigma)
    error = {name: (make(train).at(sigma, fresh)(y) - fresh).square().mean() for name, make in DENOISERS.items()}
    for basis in ("dct", "bandlet"):
        assert error[f"oracle_{basis}"] < error[f"threshold_{basis}"] < (y - fresh).square().mean()
    assert error["threshold_bandlet"] < error["threshold_wavelet"]
