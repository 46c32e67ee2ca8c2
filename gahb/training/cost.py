"""What a trial will cost, before anything runs, counted on shapes alone: work and memory.

Training takes 3·(forward FLOPs)·(images seen) operations: forward, gradient of the activations, gradient of the
weights. An evaluation denoises n_test training and n_test held-out images at every noise level, a third as much each.

Memory is what is alive at once in backward, layer by layer (`_alive`), or in an evaluation:

    18 bytes a parameter (weight, gradient, Adam's two moments, a copy in bfloat16) + the images, a byte or two a pixel
    + max(batch size · what is alive an image, evaluation batch · the same of an evaluation)

or 28 bytes a parameter, when a checkpoint's copy is made; averaged weights take 12 more, and 8 in the copy; and a tenth
more for what the allocator cannot use. What the
process takes without a model comes on top, and on a GPU its context and workspaces (`gahb.hardware`). Compiled, as much
is kept as eagerly, and the step's memory is the CUDA graph's own, so an evaluation comes beside it.
"""

import itertools
from functools import cache

from gahb.denoising.levels import INPUT_PSNR, evaluation_batch
from gahb.models.architectures import Architecture
from gahb.models.layer_costs import LEVELS, TRANSIENT, Level
from gahb.trial import Trial

TRAINING_FACTOR = 3
"""Forward, gradient of the activations, gradient of the weights: a step costs about three forward passes."""

FIRST_EVALUATION = 16
"""The step after which PSNR is first measured, in a training of so many steps."""

WASTE = 1.1
"""What torch's allocator takes of a GPU over what is in use."""

CPU_WASTE = 1.25
"""What glibc's takes of the system over what is in use, which does not give back what a checkpoint's copy took."""


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


def evaluation_steps(steps: int, in_a_doubling: int = 1) -> list[int]:
    """Steps after which PSNR is measured: FIRST_EVALUATION, then so many in each doubling, and the last."""
    spaced = (round(FIRST_EVALUATION * 2 ** (number / in_a_doubling)) for number in itertools.count())
    return [*dict.fromkeys(itertools.takewhile(lambda step: step < steps, spaced)), steps]


def images(trial: Trial) -> float:
    """Images seen in training, and those of the evaluations as the number that takes as long to train on."""
    evaluations = len(evaluation_steps(trial.steps, trial.evaluations))
    return trial.images + evaluations * len(INPUT_PSNR) * 2 * trial.n_test / TRAINING_FACTOR


@cache
def _alive(architecture: Architecture, resolution: int, level: Level, width: int) -> int:
    """The most bytes an image that are alive at once in a step whose activations have numbers of `width` bytes. No
    level holds more than the one before it.

    Backward goes from the last layer to the first. At each of them there is what all before it keep, and what its own
    backward holds.
    """
    most = kept = opened = 0
    for layer in architecture.counts(resolution):
        copy = 4 * layer.float32 if width < 4 else 0
        read = copy + width * layer.float32
        stays = width * (layer.kept - layer.cheap)
        if level == "none":
            read = copy + width * layer.cheap
            stays += read
        elif layer.opens:
            inputs = width * layer.opens
            opened += inputs
            kept = {"layer": kept + inputs, "block": opened, "host": inputs}[level]
        if level == "host":
            read += width * layer.shared
            stays += width * layer.shared
        most = max(most, kept + width * layer.product, kept + read + 4 * layer.wide)
        kept += stays
    if level == "none":
        return most
    return min(most, _alive(architecture, resolution, LEVELS[LEVELS.index(level) - 1], width))


@cache
def _alive_in_evaluation(architecture: Architecture, resolution: int) -> int:
    """The most bytes an image that are alive at once in a forward pass in float32, which keeps nothing: no more than in
    backward of the product, or three of the largest tensors."""
    return 4 * max(layer.product or TRANSIENT * layer.largest for layer in architecture.counts(resolution))


def memory(trial: Trial, level: Level = "none", *, on_gpu: bool = True) -> int:
    """The most bytes of the device that training holds at once at a level of activation checkpointing, beside those of
    a process without a model. On a CPU, where there is nothing beyond it, level "host" is what a GPU would hold."""
    architecture, resolution = trial.architecture, trial.dataset.resolution
    weights, images = parameters(architecture, resolution), (trial.n_train + trial.n_test) * trial.dataset.bytes
    step = trial.batch_size * _alive(architecture, resolution, level, _width(trial, on_gpu=on_gpu))
    evaluation = min(trial.n_test, evaluation_batch(resolution)) * _alive_in_evaluation(architecture, resolution)
    recorded = on_gpu and trial.compile and level != "host"
    most = step + evaluation if recorded else max(step, evaluation)
    averages, copied = (12 * weights, 8 * weights) if trial.ema else (0, 0)
    at_rest, in_copy = 18 * weights + averages, 28 * weights + averages + copied
    if not on_gpu:
        return int(images + CPU_WASTE * (in_copy + most))
    return int(images + WASTE * max(in_copy, at_rest + most))


def host_memory(trial: Trial, level: Level) -> int:
    """Bytes of pinned memory of the node that training on a GPU takes at a level, 0 at all but "host"."""
    if level != "host":
        return 0
    layers = trial.architecture.counts(trial.dataset.resolution)
    sizes = [layer.opens for layer in layers if layer.opens] or [layer.kept for layer in layers if layer.kept]
    return sum(1 << (_width(trial) * trial.batch_size * size - 1).bit_length() for size in sizes)


def cheapest_level(trial: Trial, available: float, *, on_gpu: bool = True) -> Level | None:
    """The first of LEVELS at which training fits in so many bytes of the device, None if it does at none."""
    fitting = (level for level in _levels(on_gpu) if memory(trial, level, on_gpu=on_gpu) <= available)
    return next(fitting, None)


def levels_to_try(trial: Trial, available: float, *, on_gpu: bool) -> list[Level]:
    """`cheapest_level`, the last if there is none, and after it each level that holds less than the one before."""
    levels = _levels(on_gpu)
    chosen = [cheapest_level(trial, available, on_gpu=on_gpu) or levels[-1]]
    shape = trial.architecture, trial.dataset.resolution
    for level in levels[levels.index(chosen[0]) + 1 :]:
        if _alive(*shape, level, 4) < _alive(*shape, chosen[-1], 4):
            chosen.append(level)
    return chosen


def _levels(on_gpu: bool) -> tuple[Level, ...]:
    """Without "host" where the host is the device."""
    return LEVELS if on_gpu else LEVELS[:-1]


def _width(trial: Trial, *, on_gpu: bool = True) -> int:
    """Bytes of an activation. On a CPU a normalisation keeps its result in float32, too."""
    return 2 if trial.precision == "bfloat16" and on_gpu else 4
