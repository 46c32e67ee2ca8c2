import math
from collections.abc import Callable, Iterator
from itertools import count

import pytest
import torch
from torch import Tensor

from gahb.denoising import noise
from gahb.denoising.noise import generator
from gahb.denoising.sampler import Sampler
from gahb.denoising.sampling import CHUNK, sample
from gahb.errors import UserError
from gahb.models.architectures import UNet
from gahb.models.layers import Denoiser, initialise


def test_a_denoiser_that_knows_one_image_samples_it() -> None:
    # N = 1: the optimal denoiser is constant, and so is what it draws
    image = torch.rand(1, 1, 12, 12)
    drawn = sample(lambda y: image.expand_as(y), 5, (1, 12, 12), mean=0.5)
    assert drawn.converged.all()
    torch.testing.assert_close(drawn.images, image.expand(5, 1, 12, 12))


def test_gaussian_data_are_sampled_with_their_variance() -> None:
    # for x ~ N(m, s² Id) and noise σ the optimum is the Wiener filter m + s²/(s²+σ²)·(y-m), here blind: σ² + s² is
    # the variance of y around m
    s, m = 0.3, 0.5

    def wiener(y: Tensor) -> Tensor:
        total = (y - m).square().mean(dim=(1, 2, 3), keepdim=True)
        return m + (s**2 / total).clamp(max=1) * (y - m)

    drawn = sample(wiener, 32, (1, 24, 24), mean=m)
    assert drawn.converged.all()
    spread = (drawn.images - m).square().mean(dim=(1, 2, 3)).sqrt()
    assert (spread - s).abs().max() < 0.03
    assert drawn.images.mean().sub(m).abs() < 0.02


def test_each_sample_is_the_one_it_would_be_alone_and_stops_by_itself() -> None:
    torch.manual_seed(0)

    def shrink(y: Tensor) -> Tensor:  # towards a flat image, at a speed that depends on the image
        return y.mean(dim=(1, 2, 3), keepdim=True) + 0.3 * (y - y.mean(dim=(1, 2, 3), keepdim=True)).tanh()

    many = sample(shrink, CHUNK + 6, (1, 8, 8), mean=0.5, seed=3)
    few = sample(shrink, 3, (1, 8, 8), mean=0.5, seed=3)
    assert many.steps.unique().numel() > 1
    torch.testing.assert_close(many.images[:3], few.images)
    assert torch.equal(many.steps[:3], few.steps)
    assert not torch.equal(many.images[0], many.images[CHUNK])  # every chunk has noise of its own


def test_a_sample_has_its_number_and_can_be_drawn_without_those_before() -> None:
    def shrink(y: Tensor) -> Tensor:
        return 0.5 + 0.3 * (y - 0.5).tanh()

    many = sample(shrink, CHUNK + 6, (1, 8, 8), mean=0.5, seed=3)
    few = sample(shrink, 4, (1, 8, 8), mean=0.5, seed=3, first=CHUNK - 2)  # two of either chunk
    torch.testing.assert_close(few.images, many.images[CHUNK - 2 : CHUNK + 2])
    assert torch.equal(few.steps, many.steps[CHUNK - 2 : CHUNK + 2])


def test_an_observer_sees_every_step_of_every_sample_and_changes_nothing() -> None:
    def shrink(y: Tensor) -> Tensor:
        flat = y.mean(dim=(1, 2, 3), keepdim=True)
        return flat + 0.3 * (y - flat).tanh()

    seen: dict[int, list[tuple[int, float, Tensor]]] = {}

    def observe(step: int, numbers: Tensor, sigma: Tensor, denoised: Tensor) -> None:
        for number, level, image in zip(numbers.tolist(), sigma.tolist(), denoised, strict=True):
            seen.setdefault(number, []).append((step, level, image))

    drawn = sample(shrink, 6, (1, 8, 8), mean=0.5, first=CHUNK - 3, observe=observe)
    plain = sample(shrink, 6, (1, 8, 8), mean=0.5, first=CHUNK - 3)
    assert torch.equal(drawn.images, plain.images) and torch.equal(drawn.steps, plain.steps)
    assert sorted(seen) == list(range(CHUNK - 3, CHUNK + 3))
    for i, number in enumerate(sorted(seen)):
        steps, levels, images = zip(*seen[number], strict=True)
        assert steps == tuple(range(1, int(drawn.steps[i]) + 1))
        assert levels[-1] <= Sampler().sigma_end < min(levels[:-1])
        assert torch.equal(images[-1], drawn.images[i])


def test_two_models_see_the_same_noise_and_a_seed_changes_it() -> None:
    firsts = []
    for seed in (0, 0, 1):
        seen: list[Tensor] = []

        def look(y: Tensor, seen: list[Tensor] = seen) -> Tensor:
            seen.append(y)
            return torch.zeros_like(y)

        sample(look, 4, (1, 8, 8), mean=0.5, seed=seed)
        firsts.append(seen[0])
    assert torch.equal(firsts[0], firsts[1]) and not torch.equal(firsts[0], firsts[2])
    assert abs(firsts[0].mean().item() - 0.5) < 0.2 and abs(firsts[0].std().item() - 1) < 0.1


def test_samples_that_run_away_are_told_apart_and_do_not_disturb_the_rest() -> None:
    def denoise(y: Tensor) -> Tensor:
        flat = torch.full_like(y, 0.5)
        bad = y[:, 0, 0, 0] > 0.5
        return torch.where(bad.view(-1, 1, 1, 1), 3 * y, flat)

    drawn = sample(denoise, 20, (1, 8, 8), mean=0.5, sampler=Sampler(beta=1.0))
    assert 0 < drawn.converged.sum() < 20
    torch.testing.assert_close(drawn.images[drawn.converged], torch.full((int(drawn.converged.sum()), 1, 8, 8), 0.5))
    nothing = sample(lambda y: y * float("nan"), 3, (1, 8, 8), mean=0.5)
    assert not nothing.converged.any()


def test_noise_level_falls_as_the_algorithm_says() -> None:
    # with f constant, ‖x - f‖ shrinks by (1 - βh_t) each step in expectation: σ₀ Π (1 - β h_t) at the end
    sampler = Sampler(h=0.05, beta=0.5, sigma_end=0.1)
    drawn = sample(lambda y: torch.zeros_like(y), 4, (1, 64, 64), mean=0.0, sampler=sampler)
    sigma, t = 1.0, 0
    while sigma > sampler.sigma_end:
        t += 1
        h = sampler.h * t / (1 + sampler.h * (t - 1))
        sigma *= 1 - sampler.beta * h
    assert (drawn.steps - (t + 1)).abs().max() <= 1


def test_a_network_is_sampled_as_it_is_step_by_step() -> None:
    torch.manual_seed(0)
    denoiser = Denoiser(UNet(1, 4).build().apply(initialise)).eval()
    drawn = sample(denoiser, 2, (1, 8, 8), mean=0.5)
    plain = sample(lambda y: denoiser(y), 2, (1, 8, 8), mean=0.5)  # not folded
    assert drawn.images.shape == (2, 1, 8, 8)
    torch.testing.assert_close(drawn.images, plain.images, atol=1e-3, rtol=0)


def algorithm_1(
    f: Callable[[Tensor], Tensor], x: Tensor, noise: Iterator[Tensor], *, h: float, beta: float, end: float, grow: bool
) -> list[Tensor]:
    """x₀, x₁, … of Algorithm 1 as the paper prints it, until σ_t < σ_∞; h may grow as h t/(1 + h (t-1))."""
    way, sigma, t = [x], math.inf, 0
    while sigma >= end:
        t += 1
        step = h * t / (1 + h * (t - 1)) if grow else h
        s = f(x) - x
        sigma = math.sqrt((s**2).sum().item() / s.numel())
        gamma = math.sqrt(((1 - beta * step) ** 2 - (1 - step) ** 2) * sigma**2)
        x = x + step * s + gamma * next(noise)
        way.append(x)
    return way


@pytest.mark.parametrize(
    ("sampler", "channels"),
    [
        (Sampler(), 1),
        (Sampler(h=0.02, growing=False, beta=0.5, sigma_end=0.2), 3),
        (Sampler(h=0.1, beta=1.0, sigma_start=2.0), 1),
    ],
)
def test_the_same_noise_becomes_the_image_of_the_published_algorithm(sampler: Sampler, channels: int) -> None:
    torch.manual_seed(1)
    mix = torch.randn(channels * 64, channels * 64, dtype=torch.float64) / 8 / channels**0.5

    def f(y: Tensor) -> Tensor:  # neither linear nor of one pixel at a time
        return 0.4 + 0.2 * (y.double().flatten(1) @ mix).tanh().view_as(y)

    seen: list[Tensor] = []

    def shown(y: Tensor) -> Tensor:
        seen.append(y)
        return f(y).float()

    drawn = sample(shown, 1, (channels, 8, 8), mean=0.4, seed=5, sampler=sampler)
    draws = (torch.randn(CHUNK, channels, 8, 8, generator=generator("sampling", 5, 0, t))[:1] for t in count())
    start = 0.4 + sampler.sigma_start * next(draws).double()
    h, beta, end, grow = sampler.h, sampler.beta, sampler.sigma_end, sampler.growing
    way = algorithm_1(f, start, draws, h=h, beta=beta, end=end, grow=grow)
    assert drawn.converged.all() and len(way) - 1 == drawn.steps == len(seen) >= 10
    for ours, theirs in zip(seen, way, strict=False):
        torch.testing.assert_close(ours.double(), theirs, atol=1e-5, rtol=0)
    torch.testing.assert_close(drawn.images.double(), f(way[-2]), atol=1e-5, rtol=0)  # denoised where σ was measured


@pytest.mark.parametrize("growing", [False, True])
def test_without_injected_noise_a_sample_is_a_function_of_its_start(
    growing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(injected: int, beta: float) -> Tensor:
        def other(*key: str | int) -> torch.Generator:
            return generator(*key) if key[-1] == 0 else generator(*key, injected)  # step 0 is the start

        monkeypatch.setattr(noise, "generator", other)
        sampler = Sampler(h=0.05, growing=growing, beta=beta)
        return sample(lambda y: 0.5 + 0.3 * (3 * y - 1.5).tanh(), 3, (1, 8, 8), mean=0.5, sampler=sampler).images

    assert torch.equal(draw(1, 1.0), draw(2, 1.0))
    assert not torch.allclose(draw(1, 0.5), draw(2, 0.5), atol=0.01)


def test_a_fixed_step_may_take_all_the_steps_that_it_needs() -> None:
    # the paper's h = 0.01 and β = 0.1: (1 - 0.001)ᵗ ≤ 0.05 after 2995 steps, where f is constant
    sampler = Sampler(growing=False)
    drawn = sample(lambda y: torch.zeros_like(y), 2, (1, 16, 16), mean=0.0, sampler=sampler)
    assert sampler.steps == 2995 and drawn.converged.all()
    assert (drawn.steps - 2995).abs().max() < 200


@pytest.mark.parametrize(
    "wrong",
    [{"h": 0.0}, {"h": 1.5}, {"beta": math.nan}, {"beta": 0}, {"sigma_end": 1.0}, {"sigma_end": 0},
     {"sigma_start": math.inf}, {"h": 1e-4, "beta": 1e-3, "growing": False}],
)  # fmt: skip
def test_constants_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError):
        Sampler(**wrong)  # type: ignore[arg-type]
