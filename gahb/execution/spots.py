"""Where trials would run, and how many at once."""

import math
from collections.abc import Sequence
from typing import Any

from gahb import hardware
from gahb.data.splits import SUBSETS
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
        from gahb.execution import connection, ray_cluster

        with connection.connected(address):
            workers, memory = ray_cluster.workers(), ray_cluster.gpu_memory()
    else:
        workers, memory = here()
        if not workers[0].gpus:
            return {}, []
    spots, reasons = {}, []
    for trial in trials:
        try:
            spots[trial] = place(trial, workers, cpus=1, gpu_memory=memory)
        except UserError as error:
            reasons.append(str(error))
    return spots, reasons


def here() -> tuple[list[WorkerType], dict[str, float]]:
    """This machine as a worker, and the memory of its kind of GPU, if it has any."""
    kind, number, size = hardware.gpus() or ("", 0, 0)
    return [WorkerType("this machine", hardware.cores(), number, math.inf, kind)], {kind: size} if number else {}


def room(trial: Trial, address: str | None, cpus: float = 1, gpus: float | None = None) -> int | None:
    """How many pairs of such trials a cluster at an address, or this machine, trains at once; None where the cluster
    grows as is asked for.

    Raises:
        UserError: no cluster at the address, or the trial fits on no node of it.
    """
    workers, memory = here()
    if address:
        from gahb.execution import connection, ray_cluster, worker_types

        with connection.connected(address):
            if worker_types.startable():
                return None
            workers, memory = worker_types.living(), ray_cluster.gpu_memory()
    part = place(trial, workers, cpus=cpus, gpus=gpus, gpu_memory=memory).gpus
    return trials_at_once(workers, cpus, part) // len(SUBSETS)


def trials_at_once(workers: Sequence[WorkerType], cpus: float, gpus: float) -> int:
    """How many trials of so many CPUs and GPUs these workers train at once."""
    shares = [min(worker.cpus / cpus, worker.gpus / gpus if gpus else math.inf) for worker in workers]
    return sum(int(share + 1e-9) for share in shares)  # three thirds are a whole


def columns(spot: Placement | None) -> dict[str, Any]:
    """The columns of a plan that say where a trial fits."""
    return {
        "worker": spot and spot.worker.name,
        "gpus": spot and spot.gpus,
        "level": spot and spot.level,
    }
