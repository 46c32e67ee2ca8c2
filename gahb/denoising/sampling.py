"""Sampling from the density that a denoiser embodies, by ascending its residual (Algorithm 1, appendix A.2).

    x₀ ~ N(m, σ₀² Id);  repeat  s = f(x) - x,  σ² = ‖s‖²/d,  γ² = ((1-βh)² - (1-h)²) σ²,  x ← x + h s + γ z
    until σ ≤ σ_∞;  the sample is f(x).

The step is fixed, as the paper has it, or grows as h_t = h₀ t / (1 + h₀ (t-1)), as in the authors' code and by default.
Algorithm 1 returns the x that follows the first σ < σ_∞, which still carries noise of about σ_∞. The sample here is the
denoised image f(x) of the x at which σ was measured; the authors' code takes that last step and denoises after it.

Every sample stops by itself, and its noise depends on the seed, its number and the step alone, so two models that
sample with one seed see the same noise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gahb import progress
from gahb.denoising import noise
from gahb.denoising.sampler import Sampler
from gahb.models.linearization import folded

CHUNK = 64
"""Samples that share a noise generator. Part of what the noise is."""

DIVERGED = 2.0
"""The noise level that a sample does not come back from, in multiples of σ₀, or of 1 where σ₀ is less."""

LEAST_CAP = 2000
CAP = 4
"""A sample is given up after so many times the steps that a constant f takes, and not before LEAST_CAP."""


@dataclass(frozen=True)
class Samples:
    """images (n, C, H, W) float32; steps (n,) int64, iterations until σ ≤ σ_∞; converged (n,) bool: False where σ
    exceeded twice the larger of σ₀ and 1, was not finite or did not reach σ_∞ in 2000 steps (if that is more, in four
    times those that a constant f takes). Such an image means nothing."""

    images: Tensor
    steps: Tensor
    converged: Tensor


Observer = Callable[[int, Tensor, Tensor, Tensor], None]
"""Is shown each step: t from 1 up, the numbers (n,) of the samples still on their way, σ (n,) and f(x) (n, C, H, W)."""


@torch.no_grad()
def sample(
    denoiser: Callable[[Tensor], Tensor],
    count: int,
    shape: Sequence[int],
    *,
    mean: float,
    seed: int = 0,
    first: int = 0,
    device: torch.device | str = "cpu",
    sampler: Sampler | None = None,
    observe: Observer | None = None,
) -> Samples:
    """Draw samples from a denoiser.

    Args:
        denoiser: f, (B, C, H, W) to the same, float32, on `device`. Of a network a folded copy is used.
        count: number of samples.
        shape: of an image, (C, H, W).
        mean: m, the mean intensity around which the starting noise lies, in [0, 1].
        seed: of starting and injected noise.
        first: number of the first sample.
        device: where to compute; the noise is the same on all.
        sampler: constants of the algorithm.
        observe: called at each step, to follow the samples on their way.
    """
    if isinstance(denoiser, nn.Module):
        denoiser = folded(denoiser)
    starts = range(first - first % CHUNK, first + count, CHUNK)
    parts = [range(max(start, first), min(start + CHUNK, first + count)) for start in starts]
    with progress.bar("sampling", count) as advance:
        chunks = [_sample_chunk(denoiser, part, shape, mean, seed, device, sampler, observe, advance) for part in parts]
    return Samples(
        images=torch.cat([chunk.images for chunk in chunks]),
        steps=torch.cat([chunk.steps for chunk in chunks]),
        converged=torch.cat([chunk.converged for chunk in chunks]),
    )


def _sample_chunk(
    denoiser: Callable[[Tensor], Tensor],
    numbers: range,
    shape: Sequence[int],
    mean: float,
    seed: int,
    device: torch.device | str,
    sampler: Sampler | None,
    observe: Observer | None,
    advance: Callable[[int], None],
) -> Samples:
    """The samples of some numbers that share a noise generator."""
    constants = sampler or Sampler()
    count = len(numbers)
    chunk, offset = divmod(numbers.start, CHUNK)

    def draw(step: int) -> Tensor:
        draws = noise.generator("sampling", seed, chunk, step)
        return torch.randn(CHUNK, *shape, generator=draws)[offset : offset + count]

    x = mean + constants.sigma_start * draw(0).to(device)
    images = torch.zeros_like(x)
    steps = torch.zeros(count, dtype=torch.int64)
    converged = torch.zeros(count, dtype=torch.bool)
    active = torch.arange(count)
    diverged = DIVERGED * max(1.0, constants.sigma_start)
    for step in range(1, max(LEAST_CAP, CAP * constants.steps) + 1):
        denoised = denoiser(x)
        z = draw(step)  # while a GPU denoises
        residual = denoised - x
        sigma = residual.square().mean(dim=(1, 2, 3)).sqrt()
        if observe:
            observe(step, numbers.start + active, sigma, denoised)
        level = sigma.cpu()  # the one place that waits for a GPU
        done = level <= constants.sigma_end
        ended = done | ~(level <= diverged)
        if ended.any():
            images[active[ended]] = denoised[ended]
            steps[active[ended]] = step
            converged[active[done]] = True
            advance(int(ended.sum()))
            going = ~ended
            active, x, residual, sigma = active[going], x[going], residual[going], sigma[going]
        if not len(active):
            break
        h = constants.step_size(step)
        gamma = ((1 - constants.beta * h) ** 2 - (1 - h) ** 2) ** 0.5 * sigma
        x = x + h * residual + gamma.view(-1, 1, 1, 1) * z[active].to(device)
    return Samples(images.cpu(), steps, converged)
