import torch
from torch import Tensor

from gahb.denoising.sampling import CHUNK, Sampler, sample
from gahb.models.architectures import UNet
from gahb.models.layers import Denoiser, initialise


def test_a_denoiser_that_knows_one_image_samples_it() -> None:
    # N = 1: the optimal denoiser is constant, and so is what it draws
    image = torch.rand(1, 1, 12, 12)
    drawn = sample(lambda y: image.expand_as(y), 5, 12, mean=0.5)
    assert drawn.converged.all()
    torch.testing.assert_close(drawn.images, image.expand(5, 1, 12, 12))


def test_gaussian_data_are_sampled_with_their_variance() -> None:
    # for x ~ N(m, s² Id) and noise σ the optimum is the Wiener filter m + s²/(s²+σ²)·(y-m), here blind: σ² + s² is
    # the variance of y around m
    s, m = 0.3, 0.5

    def wiener(y: Tensor) -> Tensor:
        total = (y - m).square().mean(dim=(1, 2, 3), keepdim=True)
        return m + (s**2 / total).clamp(max=1) * (y - m)

    drawn = sample(wiener, 32, 24, mean=m)
    assert drawn.converged.all()
    spread = (drawn.images - m).square().mean(dim=(1, 2, 3)).sqrt()
    assert (spread - s).abs().max() < 0.03
    assert drawn.images.mean().sub(m).abs() < 0.02


def test_each_sample_is_the_one_it_would_be_alone_and_stops_by_itself() -> None:
    torch.manual_seed(0)

    def shrink(y: Tensor) -> Tensor:  # towards a flat image, at a speed that depends on the image
        return y.mean(dim=(1, 2, 3), keepdim=True) + 0.3 * (y - y.mean(dim=(1, 2, 3), keepdim=True)).tanh()

    many = sample(shrink, CHUNK + 6, 8, mean=0.5, seed=3)
    few = sample(shrink, 3, 8, mean=0.5, seed=3)
    assert many.steps.unique().numel() > 1
    torch.testing.assert_close(many.images[:3], few.images)
    assert torch.equal(many.steps[:3], few.steps)
    assert not torch.equal(many.images[0], many.images[CHUNK])  # every chunk has noise of its own


def test_a_sample_has_its_number_and_can_be_drawn_without_those_before() -> None:
    def shrink(y: Tensor) -> Tensor:
        return 0.5 + 0.3 * (y - 0.5).tanh()

    many = sample(shrink, CHUNK + 6, 8, mean=0.5, seed=3)
    few = sample(shrink, 4, 8, mean=0.5, seed=3, first=CHUNK - 2)  # two of either chunk
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

    drawn = sample(shrink, 6, 8, mean=0.5, first=CHUNK - 3, observe=observe)
    plain = sample(shrink, 6, 8, mean=0.5, first=CHUNK - 3)
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

        sample(look, 4, 8, mean=0.5, seed=seed)
        firsts.append(seen[0])
    assert torch.equal(firsts[0], firsts[1]) and not torch.equal(firsts[0], firsts[2])
    assert abs(firsts[0].mean().item() - 0.5) < 0.2 and abs(firsts[0].std().item() - 1) < 0.1


def test_samples_that_run_away_are_told_apart_and_do_not_disturb_the_rest() -> None:
    def denoise(y: Tensor) -> Tensor:
        flat = torch.full_like(y, 0.5)
        bad = y[:, 0, 0, 0] > 0.5
        return torch.where(bad.view(-1, 1, 1, 1), 3 * y, flat)

    drawn = sample(denoise, 20, 8, mean=0.5, sampler=Sampler(beta=1.0))
    assert 0 < drawn.converged.sum() < 20
    torch.testing.assert_close(drawn.images[drawn.converged], torch.full((int(drawn.converged.sum()), 1, 8, 8), 0.5))
    nothing = sample(lambda y: y * float("nan"), 3, 8, mean=0.5)
    assert not nothing.converged.any()


def test_noise_level_falls_as_the_algorithm_says() -> None:
    # with f constant, ‖x - f‖ shrinks by (1 - βh_t) each step in expectation: σ₀ Π (1 - β h_t) at the end
    sampler = Sampler(h=0.05, beta=0.5, sigma_end=0.1)
    drawn = sample(lambda y: torch.zeros_like(y), 4, 64, mean=0.0, sampler=sampler)
    sigma, t = 1.0, 0
    while sigma > sampler.sigma_end:
        t += 1
        h = sampler.h * t / (1 + sampler.h * (t - 1))
        sigma *= 1 - sampler.beta * h
    assert (drawn.steps - (t + 1)).abs().max() <= 1


def test_a_network_is_sampled_as_it_is_step_by_step() -> None:
    torch.manual_seed(0)
    denoiser = Denoiser(UNet(1, 4).build().apply(initialise)).eval()
    drawn = sample(denoiser, 2, 8, mean=0.5)
    plain = sample(lambda y: denoiser(y), 2, 8, mean=0.5)  # not folded
    assert drawn.images.shape == (2, 1, 8, 8)
    torch.testing.assert_close(drawn.images, plain.images, atol=1e-3, rtol=0)
