import torch

from gahb.denoising import noise


def test_a_generator_is_a_function_of_its_key() -> None:
    draws = [torch.randn(4, generator=noise.generator(*key)) for key in (("a", 1), ("a", 1), ("a", 2), ("b", 1))]
    assert torch.equal(draws[0], draws[1])
    assert len({tuple(d.tolist()) for d in draws}) == 3


def test_noise_levels_are_quadratic_and_noise_is_white() -> None:
    images = torch.randint(0, 256, (10, 1, 8, 8), dtype=torch.uint8)
    noisy, target, _ = noise.noisy_batch(images, 4000, noise.generator("t"))
    clean = noisy - target
    known = {tuple(image.flatten().tolist()) for image in images}
    assert {tuple((255 * image).round().int().flatten().tolist()) for image in clean[:200]} <= known
    sigma = target.square().mean(dim=(1, 2, 3)).sqrt()
    # σ = u²: P(σ < s) = sqrt(s), mean 1/3
    for s in (0.04, 0.25, 0.64):
        assert abs((sigma < s).float().mean().item() - s**0.5) < 0.03
    assert abs(sigma.mean().item() - 1 / 3) < 0.02
    assert abs((target / sigma.view(-1, 1, 1, 1)).mean().item()) < 0.01


def test_every_image_is_drawn() -> None:
    images = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1)
    noisy, target, _ = noise.noisy_batch(images, 1000, noise.generator("t"))
    counts = torch.bincount((255 * (noisy - target)).round().int().flatten(), minlength=10)
    assert counts.min() > 50


def test_the_other_noise_laws() -> None:
    images = torch.zeros(1, 1, 1, 1, dtype=torch.uint8)
    sigma = noise.noisy_batch(images, 20_000, noise.generator("t"), "log_uniform")[2].flatten()
    decibels = -20 * sigma.log10()
    for level in (6, 21, 36):
        assert abs((decibels < level).float().mean().item() - level / 42) < 0.015
    noisy, target, sigma = noise.noisy_batch(images, 20_000, noise.generator("t"), "lognormal")
    inner = sigma[sigma < 1].log()
    assert sigma.max() == 1 and abs(inner.median().item() + 1.9) < 0.15 and torch.equal(noisy, target)
    # P(ln σ < -1.9 - 1.2) = 0.159, P(σ = 1) = P(z > 1.9/1.2) = 0.057
    assert abs((sigma.log() < -3.1).float().mean().item() - 0.159) < 0.01
    assert abs((sigma == 1).float().mean().item() - 0.057) < 0.01
    assert abs((target / sigma).square().mean().item() - 1) < 0.03
