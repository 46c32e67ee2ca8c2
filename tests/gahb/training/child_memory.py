"""Run by test_cost in a process of its own, as `child_memory.py TRIAL`: prints what training the trial, given as JSON,
adds to the most memory that the process held, over what `cost.memory` says."""

import json
import sys
import tempfile
from pathlib import Path

import torch

from gahb import hardware
from gahb.storage.local import Folder
from gahb.training import cost
from gahb.training.checkpoints import Checkpoints
from gahb.training.loop import Training, train
from gahb.trial import Trial

CPU = torch.device("cpu")


def peak(trial: Trial) -> float:
    """Bytes that this process has held at most, after it has trained."""
    side = trial.dataset.resolution
    images = torch.randint(0, 256, (4, 1, side, side), dtype=torch.uint8)
    with tempfile.TemporaryDirectory() as folder:
        train(Training(trial, images, images, CPU), Checkpoints(Folder(Path(folder))))
    return hardware.peak_memory(CPU)


if __name__ == "__main__":
    torch.set_num_threads(1)
    common = {"dataset": "disks", "n_train": 4, "n_test": 4}
    trial = Trial.of({**common, **json.loads(sys.argv[1])})
    before = peak(Trial.of({**common, "resolution": 8, "width": 4, "batch_size": 4, "images": 4}))
    print((peak(trial) - before) / cost.memory(trial, on_gpu=False))
