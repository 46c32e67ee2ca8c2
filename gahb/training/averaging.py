"""Averages of weights on the way, so that a training at a constant rate stands at every moment for one that ends there.

The power-function average of Karras et al. (2024), "Analyzing and improving the training dynamics of diffusion models",
section 3.1:

    θ̂_t = β_t θ̂_{t-1} + (1 - β_t) θ_t,    β_t = (1 - 1/t)^(γ+1),    σ_rel = (γ+1)^½ (γ+2)^-1 (γ+3)^-½.

Step τ weighs (τ/t)^γ, so the average widens with t and forgets its beginning; σ_rel is the standard deviation of that
weight as a share of t. Running standard deviations are averaged with the weights, for those of the last weights are
not theirs. 1 - β_t falls as 18/t at σ_rel = 0.05, and float32 would lose it in rounding, so averages are in float64.
"""

import copy

import numpy as np
import torch
from torch import nn


def exponent(length: float) -> float:
    """γ of a relative length σ_rel, in 0 … 12^-½: the largest root of t³ + 7t² + (16 - σ_rel^-2)t + 12 - σ_rel^-2."""
    return float(np.roots([1, 7, 16 - length**-2, 12 - length**-2]).real.max())


class WeightAverage:
    """The average of a network's weights and running standard deviations.

    Args:
        net: what is trained, of which this keeps hold.
        length: σ_rel.

    Attributes:
        values: the averages by name, float64.
    """

    def __init__(self, net: nn.Module, length: float) -> None:
        self._live = net.state_dict()
        self._averaged = copy.deepcopy(net).eval()
        self._gamma = exponent(length)
        self.values = {name: tensor.double() for name, tensor in self._live.items()}
        self._share = torch.zeros((), dtype=torch.float64, device=next(net.parameters()).device)

    def set_share(self, step: int) -> None:
        """Prepare the update after a step, counted from 0: 1 - β_t, where a CUDA graph finds it."""
        self._share.fill_(1 - (1 - 1 / (step + 1)) ** (self._gamma + 1))

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are."""
        for name, average in self.values.items():
            average.lerp_(self._live[name].double(), self._share)

    def net(self) -> nn.Module:
        """The network with averaged weights, in evaluation mode; the next call changes it."""
        self._averaged.load_state_dict(self.values)
        return self._averaged
