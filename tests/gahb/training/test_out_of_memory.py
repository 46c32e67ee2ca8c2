import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gahb.training import cost, out_of_memory
from gahb.trial import Trial

TRIAL = {
    "dataset": "c_alpha", "resolution": 32, "n_train": 3, "n_test": 3, "architecture": "bf_cnn", "layers": 21,
    "width": 8, "batch_size": 64, "images": 64 * 4,
}  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on a process's data is Linux's")
def test_a_training_that_runs_out_of_memory_ends_with_the_same_bits(tmp_path: Path) -> None:
    program = Path(__file__).with_name("child_out_of_memory.py")
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}  # what is freed goes back, and does not count
    command = [sys.executable, program, tmp_path, json.dumps(TRIAL)]
    child = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert child.returncode == 0, child.stderr
    need = f"training takes about {cost.memory(Trial.of(TRIAL), on_gpu=False) / 1e9:.2g} GB"
    chosen = "with activation checkpointing ({}), as " + need + " without it, and {} GB are there"
    said = "out of memory: from here on with activation checkpointing ({}), which is slower and holds less"
    *lines, end = child.stdout.splitlines()
    assert lines == [
        "tight " + chosen.format("layer", "0.063"),  # and so never runs out
        "later " + said.format("layer"),
        "scarce " + said.format("layer"),
        "scarce " + said.format("block"),
        "none " + chosen.format("block", "0.0084"),
    ]
    assert end.startswith(
        f"none out of memory even with activation checkpointing; without it {need}: choose a smaller "
    )
    whole, *spared = (torch.load(tmp_path / f"{name}.pt") for name in ("whole", "tight", "later", "scarce"))
    assert all(torch.equal(value, each[key]) for each in spared for key, value in whole.items())


SAID = [
    "CUDA out of memory. Tried to allocate 20.00 MiB",
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory",
    "could not create a primitive",
    "GET was unable to find an engine to execute this computation",
    "Unable to find an engine to execute this computation",
    "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
]


@pytest.mark.parametrize("said", SAID)
def test_what_the_libraries_say_is_known(said: str) -> None:
    assert out_of_memory.is_out_of_memory(RuntimeError(said)) and not out_of_memory.is_out_of_memory(OSError(said))


def test_other_errors_do_not_count_as_out_of_memory() -> None:
    def fails(level: str) -> Tensor:
        return torch.ones(2) @ torch.ones(3)

    with pytest.raises(RuntimeError, match="size"):
        out_of_memory.with_less_memory(fails, ["none", "block"], 1, print)
