"""Where the trials of a plan would run."""

import math
from collections.abc import Sequence
from typing import Any

from gahb import hardware
from gahb.errors import UserError
from gahb.planning.placement import GPU_MEMORY, Placement, WorkerType, place
from gahb.trial import Trial


def find(trials: Sequence[Trial], address: str | None, cluster: str | None) -> tuple[dict[Trial, Placement], list[str]]:
    """Trial → where it fits on a cluster that runs, on one that a cluster file describes, or, if it has one, on this
    machine's GPU; and why others fit nowhere.

    Raises:
        UserError: no cluster at the address, or a file that describes none.
    """
    memory: dict[str, float] = dict(GPU_MEMORY)
    if cluster:
        from gahb.execution import worker_types

        workers = worker_types.of_file(cluster)
    elif address:
        from gahb.execution import ray_cluster

        with ray_cluster.connected(address):
            workers, memory = ray_cluster.workers(), ray_cluster.gpu_memory()
    elif found := hardware.gpus():
        kind, number, size = found
        workers, memory = [WorkerType("this machine", hardware.cores(), number, math.inf, kind)], {kind: size}
    else:
        return {}, []
    spots, reasons = {}, []
    for trial in trials:
        try:
            spots[trial] = place(trial, workers, cpus=1, gpu_memory=memory)
        except UserError as error:
            reasons.append(str(error))
    return spots, reasons


def columns(spot: Placement | None) -> dict[str, Any]:
    """The columns of a plan that say where a trial fits."""
    return {
        "worker": spot and spot.worker.name,
        "gpus": spot and spot.gpus,
        "level": spot and spot.level,
    }
