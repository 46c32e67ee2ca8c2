"""What a trial will cost, before anything runs: parameters and floating-point operations, counted on shapes alone."""

from functools import cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from gahb.models.architectures import Architecture
from gahb.trial import Trial

TRAINING_FACTOR = 3
"""Forward, gradient of the activations, gradient of the weights: a step costs about three forward passes."""


@cache
def parameters(architecture: Architecture) -> int:
    """Number of trained parameters."""
    with torch.device("meta"):
        return sum(p.numel() for p in architecture.build().parameters())


@cache
def forward_flops(architecture: Architecture, resolution: int) -> int:
    """Floating-point operations (a multiplication and an addition are two) to denoise one image."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        architecture.build()(torch.empty(1, 1, resolution, resolution))
    return int(counter.get_total_flops())


def training_flops(trial: Trial) -> float:
    """Floating-point operations of the whole training."""
    return float(TRAINING_FACTOR * forward_flops(trial.architecture, trial.dataset.resolution) * trial.images)
