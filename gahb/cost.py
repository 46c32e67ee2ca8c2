"""What a trial will cost, before anything runs: parameters and floating-point operations, counted on shapes alone."""

from functools import cache

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gahb.models.architectures import Architecture
from gahb.trial import Trial

TRAINING_FACTOR = 3
"""Forward, gradient of the activations, gradient of the weights: a step costs about three forward passes."""


@cache
def parameters(architecture: Architecture) -> int:
    """Number of trained parameters."""
    return sum(p.numel() for p in _shapes(architecture).parameters())


@cache
def forward_flops(architecture: Architecture, resolution: int) -> int:
    """Floating-point operations (a multiplication and an addition are two) to denoise one image."""
    net = _shapes(architecture)
    with FlopCounterMode(display=False) as counter:
        net(torch.empty(1, 1, resolution, resolution, device="meta"))
    return int(counter.get_total_flops())


@cache
def _shapes(architecture: Architecture) -> nn.Module:
    """The network without memory behind its weights."""
    with torch.device("meta"):
        return architecture.build()


def training_flops(trial: Trial) -> float:
    """Floating-point operations of the whole training."""
    return float(TRAINING_FACTOR * forward_flops(trial.architecture, trial.dataset.resolution) * trial.images)
