from dataclasses import replace

import pytest

from gahb.errors import UserError
from gahb.planning import gpu_sharing
from gahb.planning.placement import GPU_MEMORY, WorkerType, place
from gahb.training import cost
from gahb.trial import Trial

CPU = WorkerType("cpu", 4, 0, 16e9, "")
T4, L4, H100 = (WorkerType(kind.lower(), 8, 1, 64e9, kind) for kind in ("T4", "L4", "H100"))


def unet(resolution: int, **changes: object) -> Trial:
    flat = {"dataset": "c_alpha", "resolution": resolution, "n_train": 10, **changes}
    return Trial.of(flat)


def test_a_trial_goes_to_the_smallest_gpu_that_it_fits_and_anywhere_if_it_fits_everywhere() -> None:
    trials = unet(20), unet(80), unet(160, batch_size=1024)
    small, medium, large = (place(trial, [H100, CPU, T4, L4], cpus=1) for trial in trials)
    assert (small.worker, small.kind) == (T4, "") and small.gpus <= 1
    assert medium.worker in (T4, L4) and medium.gpus == 1
    assert (large.worker, large.kind, large.gpus) == (H100, "H100", 1)


def test_activations_wait_in_the_node_s_memory_only_where_no_gpu_has_room() -> None:
    trial = unet(160)
    levels = {kind: cost.cheapest_level(trial, gpu_sharing.available(GPU_MEMORY[kind], 1)) for kind in ("L4", "H100")}
    assert place(trial, [H100, L4], cpus=1).worker == H100 and levels["H100"] not in ("host", None)
    assert place(trial, [L4], cpus=1).level == levels["L4"] == "host"


def test_what_is_placed_fits() -> None:
    for side in (20, 40, 80, 160):
        for precision in ("float32", "bfloat16"):
            trial = unet(side, precision=precision)
            spot = place(trial, [T4, L4, H100], cpus=1)
            memory = gpu_sharing.available(GPU_MEMORY[spot.worker.kind], spot.gpus)
            assert cost.memory(trial, spot.level) <= memory
            assert spot.memory <= spot.worker.memory


def test_without_gpus_or_where_none_is_wanted_a_trial_gets_cores() -> None:
    trial = unet(20, batch_size=32)
    assert place(trial, [CPU], cpus=2).gpus == 0
    spot = place(trial, [L4, CPU], cpus=2, gpus=0)
    assert spot.gpus == 0 and spot.kind == "" and spot.memory >= cost.memory(trial)


def test_a_gpu_of_an_unknown_kind_is_taken_whole_and_its_memory_not_reckoned_with() -> None:
    unknown = replace(L4, kind="GeForce-RTX-5090")
    spot = place(unet(160), [unknown], cpus=1)
    assert (spot.gpus, spot.level) == (1, "none")
    told = place(unet(20), [unknown], cpus=1, gpu_memory={"GeForce-RTX-5090": 33e9})
    assert told.gpus < 1 or cost.TRAINING_FACTOR * cost.forward_flops(unet(20).architecture, 20) * 512 > 1e11


@pytest.mark.parametrize(
    ("workers", "wanted", "message"),
    [
        ([CPU], {"cpus": 5}, "needs 5 CPUs, and the largest node has 4"),
        ([CPU], {"cpus": 1, "gpus": 1}, "needs 1 GPUs, and the largest node has 0"),
        ([L4, CPU], {"cpus": 1, "gpus": 2}, "needs 2 GPUs, and the largest node with a GPU has 1"),
        (
            [T4, L4],
            {"cpus": 1, "gpus": 0.25},
            "GB of a GPU even with activation checkpointing, and its part of the .* L4",
        ),
        ([replace(H100, memory=1e9)], {"cpus": 1}, "GB of memory, and the largest node has 1.0 GB"),
        ([replace(CPU, memory=1e9)], {"cpus": 1}, "GB of memory, and the largest node has 1.0 GB"),
    ],
)
def test_what_fits_nowhere_is_told_why(workers: list[WorkerType], wanted: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        place(unet(160), workers, **wanted)  # type: ignore[arg-type]


def test_ray_s_resources_make_a_worker_type() -> None:
    resources = {"CPU": 8.0, "GPU": 1.0, "memory": 2e9, "accelerator_type:L4": 1.0, "node:10.0.0.1": 1.0}
    assert WorkerType.of("l4", resources) == WorkerType("l4", 8, 1, 2e9, "L4")
    assert WorkerType.of("head", {"memory": 5.0}) == WorkerType("head", 0, 0, 5, "")
