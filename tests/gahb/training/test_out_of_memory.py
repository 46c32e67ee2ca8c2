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
    said = "out of memory: from here on with activation checkpointing, which is slower and holds less"
    end = (
        "out of memory even with activation checkpointing; without it training takes about "
        f"{cost.memory(Trial.of(TRIAL)) / 1e9:.2g} GB: choose a smaller batch_size or a larger share of the device"
    )
    assert child.stdout.splitlines() == [f"tight {said}", f"later {said}", f"none {said}", f"none {end}"]
    whole, tight, later = (torch.load(tmp_path / f"{name}.pt") for name in ("whole", "tight", "later"))
    assert all(torch.equal(value, tight[key]) and torch.equal(value, later[key]) for key, value in whole.items())


def test_other_errors_do_not_count_as_out_of_memory() -> None:
    def fails(level: str) -> Tensor:
        return torch.ones(2) @ torch.ones(3)

    with pytest.raises(RuntimeError, match="size"):
        out_of_memory.with_less_memory(fails, 1, print)
