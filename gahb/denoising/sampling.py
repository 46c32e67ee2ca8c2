"""Sampling from the density that a denoiser embodies, by ascending its residual (Algorithm 1, appendix A.2).

    x₀ ~ N(m, σ₀² Id);  repeat  s = f(x) - x,  σ² = ‖s‖²/d,  γ² = ((1-βh)² - (1-h)²) σ²,  x ← x + h s + γ z
    until σ ≤ σ_∞;  the sample is f(x).

The step is fixed, as the paper has it, or grows as h_t = h₀ t / (1 + h₀ (t-1)), as in the authors' code and by default.
Algorithm 1 returns the x that follows the first σ < σ_∞, which still carries noise of about σ_∞. The sample here is the
denoised image f(x) of the x at which σ was measured; the authors' code takes that last step and denoises after it.

Every sample stops by itself, and its noise depends on the seed, its number and the step alone, so two models that
sample with one seed see the same noise.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from gahb.denoising import noise
from gahb.errors import UserError
from gahb.models.linearization import folded

CHUNK = 64
"""Samples that share a noise generator. Part of what the noise is."""

DIVERGED = 2.0
"""The noise level that a sample does not come back from, in multiples of σ₀, or of 1 where σ₀ is less."""

LEAST_CAP = 2000
CAP = 4
"""A sample is given up after so many times the steps that a constant f takes, and not before LEAST_CAP."""

LONGEST = 100_000
"""Steps that a constant f may take."""


@dataclass(frozen=True)
class Sampler:
    """The constants of Algorithm 1, the paper's by default, but that h grows.

    Args:
        h: step size h, or h₀ of the first step if it grows, in (0, 1].
        growing: whether the step grows, h_t = h₀ t / (1 + h₀ (t-1)).
        beta: β in (0, 1]; 1 injects no noise, so that the sample is a function of x₀.
        sigma_start: σ₀.
        sigma_end: σ_∞ < σ₀.

    Raises:
        UserError: a constant out of range, or steps so small that more than LONGEST were needed.
    """

    h: float = 0.01
    growing: bool = True
    beta: float = 0.1
    sigma_start: float = 1.0
    sigma_end: float = 0.05

    def __post_init__(self) -> None:
        for key in ("h", "beta"):
            if not 0 < getattr(self, key) <= 1:
                raise UserError(f"{key} {getattr(self, key)}: must be above 0 and at most 1")
        if not 0 < self.sigma_end < self.sigma_start < math.inf:
            raise UserError(
                f"sigma-start {self.sigma_start} and sigma-end {self.sigma_end}: "
                "the noise must fall from the first to the second, above 0"
            )
        if self.steps > LONGEST:
            raise UserError(f"h {self.h} and beta {self.beta}: more than {LONGEST:,} steps; make them larger")

    def step_size(self, step: int) -> float:
        """h_t of step t = 1, 2, …"""
        return self.h * step / (1 + self.h * (step - 1)) if self.growing else self.h

    @cached_property
    def steps(self) -> int:
        """The steps in which σ falls from σ₀ to σ_∞ where f is constant, ∏ (1 - β h_t) ≤ σ_∞/σ₀, or LONGEST + 1."""
        level, step = self.sigma_start, 0
        while level > self.sigma_end and step <= LONGEST:
            step += 1
            level *= 1 - self.beta * self.step_size(step)
        return step


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
    chunks = [_sample_chunk(denoiser, part, shape, mean, seed, device, sampler, observe) for part in parts]
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
            going = ~ended
            active, x, residual, sigma = active[going], x[going], residual[going], sigma[going]
        if not len(active):
            break
        h = constants.step_size(step)
        gamma = ((1 - constants.beta * h) ** 2 - (1 - h) ** 2) ** 0.5 * sigma
        x = x + h * residual + gamma.view(-1, 1, 1, 1) * z[active].to(device)
    return Samples(images.cpu(), steps, converged)
