"""What a trial will cost, before anything runs, counted on shapes alone: work and memory.

Training takes 3·(forward FLOPs)·(images seen) operations: forward, gradient of the activations, gradient of the
weights. An evaluation denoises n_test training and n_test held-out images at every noise level, a third as much each.

The most memory is held at the end of a forward pass, when all that backward needs is there, or in an evaluation:

    28 bytes a parameter (weight, gradient, Adam's two moments, a checkpoint's copy) + the images, one byte a pixel
    + max(batch size · (bytes kept for backward + transient), evaluation batch · transient)

where three of the largest tensors are transient, and a quarter more for what the allocator cannot use. What the process
takes without a model comes on top.
"""

from functools import cache

from gahb.denoising.levels import EVALUATION_BATCH, INPUT_PSNR
from gahb.models.architectures import Architecture
from gahb.models.layer_costs import LEVELS, Level
from gahb.trial import Trial

TRAINING_FACTOR = 3
"""Forward, gradient of the activations, gradient of the weights: a step costs about three forward passes."""

FIRST_EVALUATION = 16
"""The step after which PSNR is first measured, in a training of so many steps."""

WASTE = 1.25
"""What an allocator takes from the system over what is in use."""

TRANSIENT = 3
"""Tensors of the size of a layer's largest that are alive at once beside what is kept."""


@cache
def parameters(architecture: Architecture, resolution: int) -> int:
    """Number of trained parameters of the network for images of that many pixels a side."""
    return sum(layer.parameters for layer in architecture.counts(resolution))


@cache
def forward_flops(architecture: Architecture, resolution: int) -> int:
    """Floating-point operations (a multiplication and an addition are two) to denoise one image."""
    return sum(layer.flops for layer in architecture.counts(resolution))


def training_flops(trial: Trial) -> float:
    """Floating-point operations of the whole training, evaluations apart."""
    return float(TRAINING_FACTOR * forward_flops(trial.architecture, trial.dataset.resolution) * trial.images)


def evaluation_steps(steps: int) -> list[int]:
    """Steps after which PSNR is measured: FIRST_EVALUATION, twice as many, and so on, and the last."""
    found = []
    step = FIRST_EVALUATION
    while step < steps:
        found.append(step)
        step *= 2
    return [*found, steps]


def images(trial: Trial) -> float:
    """Images seen in training, and those of the evaluations as the number that takes as long to train on."""
    evaluations = len(evaluation_steps(trial.steps))
    return trial.images + evaluations * len(INPUT_PSNR) * 2 * trial.n_test / TRAINING_FACTOR


def memory(trial: Trial, level: Level = "none") -> int:
    """The most bytes of the device that training holds at once at a level of activation checkpointing, beside those of
    a process without a model."""
    resolution = trial.dataset.resolution
    layers = trial.architecture.counts(resolution)
    transient = 4 * TRANSIENT * max(layer.largest for layer in layers)
    kept = {"none": 1, "layer": 1, "block": 0.5, "host": 0.5}[level] * sum(layer.kept for layer in layers)
    step = trial.batch_size * (4 * kept + transient)
    evaluation = min(trial.n_test, EVALUATION_BATCH) * transient
    resident = (trial.n_train + trial.n_test) * resolution**2
    return int(WASTE * (28 * parameters(trial.architecture, resolution) + resident + max(step, evaluation)))


def host_memory(trial: Trial, level: Level) -> int:
    """Bytes of the node's pinned memory that training at a level takes."""
    return 0


def cheapest_level(trial: Trial, memory_of_device: float) -> Level | None:
    """The first of LEVELS at which training fits in so many bytes of the device, None if it does at none."""
    return next((level for level in LEVELS if memory(trial, level) <= memory_of_device), None)
