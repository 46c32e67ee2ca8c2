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

from gahb.models.architectures import Architecture
from gahb.trial import Trial

TRAINING_FACTOR = 3
"""Forward, gradient of the activations, gradient of the weights: a step costs about three forward passes."""

LEVELS = 15
"""Noise levels of an evaluation."""

EVALUATION_BATCH = 512
"""Images that an evaluation denoises at once."""

WASTE = 1.25
"""What an allocator takes from the system over what is in use."""

TRANSIENT = 3
"""Tensors of the size of a layer's largest that are alive at once beside what is kept."""


@cache
def parameters(architecture: Architecture) -> int:
    """Number of trained parameters."""
    return sum(layer.parameters for layer in architecture.counts(2**10))


@cache
def forward_flops(architecture: Architecture, resolution: int) -> int:
    """Floating-point operations (a multiplication and an addition are two) to denoise one image."""
    return sum(layer.flops for layer in architecture.counts(resolution))


def training_flops(trial: Trial) -> float:
    """Floating-point operations of the whole training, evaluations apart."""
    return float(TRAINING_FACTOR * forward_flops(trial.architecture, trial.dataset.resolution) * trial.images)


def evaluations(trial: Trial) -> int:
    """How often the PSNR is measured: after 16, 32, 64 … steps and at the end."""
    return max(0, (trial.steps - 1).bit_length() - 4) + 1


def images(trial: Trial) -> float:
    """Images seen in training, and those of the evaluations as the number that takes as long to train on."""
    return trial.images + evaluations(trial) * LEVELS * 2 * trial.n_test / TRAINING_FACTOR


def memory(trial: Trial) -> int:
    """The most bytes that training holds at once, beside those of a process without a model."""
    resolution = trial.dataset.resolution
    layers = trial.architecture.counts(resolution)
    transient = 4 * TRANSIENT * max(layer.largest for layer in layers)
    step = trial.batch_size * (4 * sum(layer.kept for layer in layers) + transient)
    evaluation = min(trial.n_test, EVALUATION_BATCH) * transient
    resident = (trial.n_train + trial.n_test) * resolution**2
    return int(WASTE * (28 * parameters(trial.architecture) + resident + max(step, evaluation)))
