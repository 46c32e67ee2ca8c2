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

CHILD = """
import resource, sys
from pathlib import Path
import torch
from gahb.training import out_of_memory, loop
from gahb.training.checkpoints import Checkpoints
from gahb.storage.local import Folder
from gahb.trial import Trial

folder, flat = Path(sys.argv[1]), eval(sys.argv[2])
images = torch.arange(3 * 32 * 32).reshape(3, 1, 32, 32).to(torch.uint8)

def limit(spare):
    lines = Path("/proc/self/status").read_text().splitlines()
    held = next(int(line.split()[1]) for line in lines if line.startswith("VmData")) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (held + spare, -1))

class Limiting(Checkpoints):
    def save(self, step, tensors, facts):
        written = super().save(step, tensors, facts)
        if step == self.limited_after:
            limit(self.spare)
        return written

def train(name, spare, after=0, **changes):
    checkpoints = Limiting(Folder(folder / name))
    checkpoints.spare, checkpoints.limited_after = spare, after
    limit(2**50 if after else spare)
    try:
        trained = loop.train(
            Trial.of({**flat, **changes}), images, images, device=torch.device("cpu"), checkpoints=checkpoints,
            checkpoint_seconds=0, say=lambda line: print(name, line),
        )
        torch.save(trained.denoiser.state_dict(), folder / f"{name}.pt")
    except out_of_memory.OutOfMemory as error:
        print(name, error)
    limit(2**50)

train("small", 2**50, batch_size=2, images=2)  # loads what is loaded late
train("whole", 2**50)
train("tight", 60 * 2**20)
train("later", 60 * 2**20, after=2)
train("none", 8 * 2**20)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on a process's data is Linux's")
def test_a_training_that_runs_out_of_memory_ends_with_the_same_bits(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CHILD, str(tmp_path), repr(TRIAL)]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}  # what is freed goes back, and does not count
    child = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert child.returncode == 0, child.stderr
    said = "out of memory: from here on activations are computed again in backward, which is slower and holds less"
    need = f"{cost.memory(Trial.of(TRIAL)) / 1e9:.2g} GB"
    end = (
        f"out of memory even where activations are computed again in backward; without that training takes about "
        f"{need}: choose a smaller batch_size or a larger share of the device"
    )
    assert child.stdout.splitlines() == [f"tight {said}", f"later {said}", f"none {said}", f"none {end}"]
    whole, tight, later = (torch.load(tmp_path / f"{name}.pt") for name in ("whole", "tight", "later"))
    assert all(torch.equal(value, tight[key]) and torch.equal(value, later[key]) for key, value in whole.items())


def test_other_errors_are_not_taken_for_a_shortage() -> None:
    def fails(recompute: bool) -> Tensor:
        return torch.ones(2) @ torch.ones(3)

    with pytest.raises(RuntimeError, match="size"):
        out_of_memory.with_less_memory(fails, 1, print)
