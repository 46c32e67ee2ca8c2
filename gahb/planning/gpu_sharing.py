"""How many trials share a device: on a CPU one a core, as many as fit in memory; on a GPU k at once, each with 1/k.

k is the largest power of two, up to 8, for which the trials fit in the GPU's memory, each holding what `cost.memory`
predicts and a context, and for which one alone leaves the GPU idle for all but 1/k of the time. How busy one keeps it
is measured by `gahb-sweep calibrate`; until then a step of 2·10¹¹ FLOPs is assumed to fill it.
"""

import math
from dataclasses import dataclass

from gahb.hardware import CONTEXT, PROCESS, WORKSPACE
from gahb.models.layer_costs import Level
from gahb.planning.calibration import Device
from gahb.training import cost
from gahb.trial import Trial

MOST = 8
FILLING = 2e11
"""FLOPs of a step that are assumed to fill a GPU: UNet 20×20 at batch 512. Reasoned, not measured."""

GPU_PROCESS = 3e9
"""Bytes of the node that a worker on a GPU takes, which loads CUDA's libraries. Reasoned, not measured."""

COMPILER = 0.25e9
"""Bytes of the node that each process of torch.compile takes, as many as the trial has CPUs. Reasoned, not measured."""

ROUNDING = 2**28
"""Requests of memory are multiples of it, so that similar trials can follow each other in one worker."""


@dataclass(frozen=True)
class Gpu:
    """A GPU's bytes of memory, and the CPUs that its node has for each."""

    memory: int
    cpus: float


def share(trial: Trial, gpu: Gpu, device: Device | None, cpus: float) -> float:
    """The part 1/k of a GPU that a trial of so many CPUs gets, by what is known of the device's speed."""
    step = cost.TRAINING_FACTOR * cost.forward_flops(trial.architecture, trial.dataset.resolution) * trial.batch_size
    measured = device.utilisation(trial) if device else None
    fits = gpu.memory / (cost.memory(trial) + CONTEXT + WORKSPACE)
    k = max(1.0, min(MOST, gpu.cpus / cpus, fits, 1 / (measured or min(1.0, step / FILLING))))
    return 1.0 / 2 ** int(math.log2(k))


def available(memory: float, part: float) -> float:
    """Bytes for a trial's tensors where it gets a part of a GPU of so many bytes: without a context and workspaces."""
    return part * memory - CONTEXT - WORKSPACE


def memory_fraction(memory: float, part: float) -> float:
    """What `torch.cuda.set_per_process_memory_fraction` takes of a worker that gets a part 1/k of a GPU of so many
    bytes, so that k contexts fit beside what the k allocate."""
    return part - CONTEXT / memory


def host_memory(trial: Trial, *, on_gpu: bool, cpus: float = 1, level: Level = "none") -> int:
    """Bytes of the node's memory that a trial of so many CPUs is granted, at a level of activation checkpointing."""
    compilers = COMPILER * max(1, int(cpus)) if trial.compile else 0
    process = GPU_PROCESS if on_gpu else PROCESS + cost.memory(trial, level, on_gpu=False)
    return math.ceil((process + compilers + cost.host_memory(trial, level)) / ROUNDING) * ROUNDING
