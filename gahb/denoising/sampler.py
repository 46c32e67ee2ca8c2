"""The constants of Algorithm 1; without torch, so that a command can name their defaults quickly."""

import math
from dataclasses import dataclass
from functools import cached_property

from gahb.errors import UserError

SAMPLES, SEED = 64, 0
"""How many images are drawn from a model, and the seed of their noise, where nothing else is asked for."""

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
