"""Where a trial runs: on which kind of worker, and with which share of its GPU.

A cluster has the workers that live and those that its autoscaler may start. A trial gets a GPU if there are any, of
the smallest kind on which it fits, at a level of activation checkpointing that leaves its activations on the GPU if
there is one; where it fits on every kind, any of them will do.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from gahb.errors import UserError
from gahb.models.layer_costs import LEVELS, Level
from gahb.planning import gpu_sharing
from gahb.planning.calibration import Device
from gahb.training import cost
from gahb.trial import Trial

KIND = "accelerator_type:"
"""What the name of Ray's resource for a kind of GPU begins with."""

GPU_MEMORY = {
    "K80": 11.9e9,
    "T4": 15.6e9,
    "P100": 17.0e9,
    "V100": 16.9e9,
    "L4": 23.5e9,
    "A10": 23.5e9,
    "A10G": 23.5e9,
    "A100": 42.2e9,
    "A100-40G": 42.2e9,
    "A100-80G": 84.9e9,
    "L40S": 47.6e9,
    "RTX-PRO-6000": 101e9,
    "H100": 84.9e9,
    "H200": 149e9,
    "B200": 190e9,
}
"""Bytes of a GPU that programs see, by Ray's name of its kind, which lacks the size where a kind has several: the least
then."""


@dataclass(frozen=True)
class WorkerType:
    """A kind of worker, alive or one that an autoscaler may start.

    Args:
        name: in the cluster's configuration, or a living node's.
        cpus: of it.
        gpus: of it.
        memory: bytes of it for trials.
        kind: of its GPUs, as Ray calls it, such as "L4"; "" if it has none or Ray does not know it.
    """

    name: str
    cpus: float
    gpus: float
    memory: float
    kind: str

    @classmethod
    def of(cls, name: str, resources: Mapping[str, float]) -> Self:
        """The worker type of Ray's resources: CPU, GPU, memory, accelerator_type:…; what is left out is 0."""
        kinds = [resource.removeprefix(KIND) for resource in resources if resource.startswith(KIND)]
        kinds.sort(key=lambda kind: kind not in GPU_MEMORY)  # beside Ray's name EC2 may have its own
        cpus, gpus, memory = (resources.get(key, 0) for key in ("CPU", "GPU", "memory"))
        return cls(name, cpus, gpus, memory, kinds[0] if kinds and gpus else "")


@dataclass(frozen=True)
class Placement:
    """What a trial asks of the cluster.

    Args:
        worker: the smallest type that it fits.
        gpus: GPUs, a fraction if it shares one.
        kind: that the GPU must be of; "" if any will do.
        memory: bytes of the node.
        level: of activation checkpointing at which it fits; "none" where nothing is known of the GPU's memory.
    """

    worker: WorkerType
    gpus: float
    kind: str
    memory: int
    level: Level


def place(
    trial: Trial,
    workers: Sequence[WorkerType],
    *,
    cpus: float,
    gpus: float | None = None,
    gpu_memory: Mapping[str, float] = GPU_MEMORY,
    device: Callable[[str], Device | None] = lambda kind: None,
) -> Placement:
    """Where a trial of so many CPUs runs.

    Args:
        workers: that live or may be started, at least one.
        gpus: that it gets; None leaves it to `gpu_sharing`, if a worker has any.
        gpu_memory: kind of GPU → its bytes.
        device: what is known of the speed of a kind of GPU.

    Raises:
        UserError: it fits on none of them. The message says what it lacks.
    """
    on_gpu = any(worker.gpus for worker in workers) if gpus is None else gpus > 0
    able = [worker for worker in workers if worker.gpus or not on_gpu]
    able.sort(key=lambda worker: (gpu_memory.get(worker.kind, 0) if on_gpu else 0, worker.memory, worker.cpus))
    found = [
        placement
        for worker in able
        if (placement := _on(trial, worker, cpus, gpus, on_gpu, gpu_memory.get(worker.kind), device(worker.kind)))
    ]
    if not found:
        raise UserError(_lacks(trial, able or workers, cpus, (gpus or 1.0) if on_gpu else 0.0, gpu_memory))
    found = [placement for placement in found if placement.level != "host"] or found
    fits_all = {placement.worker.kind for placement in found} == {worker.kind for worker in able}
    return replace(found[0], kind="") if fits_all or not on_gpu else found[0]


def _on(
    trial: Trial,
    worker: WorkerType,
    cpus: float,
    gpus: float | None,
    on_gpu: bool,
    memory: float | None,
    device: Device | None,
) -> Placement | None:
    """The placement on a worker type whose GPUs have so much memory, None where that is not known; None if the trial
    does not fit."""
    part = gpus or (1.0 if on_gpu else 0.0)
    level: Level | None = "none"
    if not on_gpu:
        level = cost.cheapest_level(trial, worker.memory - gpu_sharing.PROCESS, on_gpu=False)
    elif memory:
        if gpus is None:
            gpu = gpu_sharing.Gpu(int(memory), worker.cpus / worker.gpus)
            part = gpu_sharing.share(trial, gpu, device, cpus)
        level = cost.cheapest_level(trial, gpu_sharing.available(memory, min(part, 1)))
    if level is None or cpus > worker.cpus or part > worker.gpus:
        return None
    needed = gpu_sharing.host_memory(trial, on_gpu=on_gpu, cpus=cpus, level=level)
    return Placement(worker, part, worker.kind, needed, level) if needed <= worker.memory else None


def _lacks(
    trial: Trial, workers: Sequence[WorkerType], cpus: float, gpus: float, gpu_memory: Mapping[str, float]
) -> str:
    """What a trial needs that none of these has."""
    for resource, needed, most in (
        ("CPUs", cpus, max(worker.cpus for worker in workers)),
        ("GPUs", gpus, max(worker.gpus for worker in workers)),
    ):
        if needed > most:
            node = "node with a GPU" if gpus and workers[0].gpus else "node"
            return f"a trial needs {needed:g} {resource}, and the largest {node} has {most:g}"
    where = f"resolution={trial.dataset.resolution} batch_size={trial.batch_size} precision={trial.precision}"
    less = "a smaller batch_size needs less"
    largest = max(workers, key=lambda worker: gpu_memory.get(worker.kind, math.inf))
    if gpus and largest.kind in gpu_memory:
        part = min(gpus, 1)
        found = gpu_sharing.available(gpu_memory[largest.kind], part)
        if (least := cost.memory(trial, LEVELS[-1])) > found:
            return (
                f"a trial of {where} needs {least / 1e9:.1f} GB of a GPU even with activation checkpointing, and its "
                f"part of the largest, {largest.kind}, has {max(found, 0) / 1e9:.1f} GB; {less}"
            )
    needed = min(gpu_sharing.host_memory(trial, on_gpu=bool(gpus), cpus=cpus, level=level) for level in LEVELS)
    most = max(worker.memory for worker in workers)
    return (
        f"a trial of {where} needs {needed / 1e9:.1f} GB of memory, and the largest node has {most / 1e9:.1f} GB for "
        f"trials; {less}"
    )
