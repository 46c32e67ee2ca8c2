"""Run by test_out_of_memory in a process of its own, as `child_out_of_memory.py FOLDER TRIAL`: trains the trial, given
as JSON, with much and with little memory, prints what is said and leaves the weights in the folder."""

import json
import resource
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gahb.storage.local import Folder
from gahb.training.checkpoints import Checkpoints
from gahb.training.loop import Options, Training, train
from gahb.training.out_of_memory import OutOfMemory
from gahb.trial import Trial

MIB = 2**20
ENOUGH = 2**50


def limit(spare: int) -> None:
    """Let this process hold so many bytes more than it does."""
    lines = Path("/proc/self/status").read_text().splitlines()
    held = next(int(line.split()[1]) for line in lines if line.startswith("VmData")) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (held + spare, -1))


class Limiting(Checkpoints):
    """Checkpoints after one of which memory becomes scarce."""

    def __init__(self, folder: Path, spare: int, after: int) -> None:
        super().__init__(Folder(folder))
        self.spare, self.after = spare, after

    def save(self, step: int, tensors: dict[str, Tensor], facts: dict[str, Any]) -> bool:
        written = super().save(step, tensors, facts)
        if step == self.after:
            limit(self.spare)
        return written


def train_with(spare: int, flat: dict[str, Any], folder: Path, after: int = 0) -> None:
    """Train with so many bytes to spare, from the beginning or after a step."""
    name = folder.name
    images = torch.arange(3 * 32 * 32).reshape(3, 1, 32, 32).to(torch.uint8)
    limit(ENOUGH if after else spare)
    try:
        training = Training(Trial.of(flat), images, images, torch.device("cpu"))
        options = Options(checkpoint_seconds=0, say=lambda line: print(name, line))
        trained = train(training, Limiting(folder, spare, after), options)
        torch.save(trained.denoiser.state_dict(), folder.with_suffix(".pt"))
    except OutOfMemory as error:
        print(name, error)
    limit(ENOUGH)


if __name__ == "__main__":
    place, flat = Path(sys.argv[1]), json.loads(sys.argv[2])
    train_with(ENOUGH, {**flat, "batch_size": 2, "images": 2}, place / "small")  # loads what is loaded late
    train_with(ENOUGH, flat, place / "whole")
    train_with(60 * MIB, flat, place / "tight")
    train_with(60 * MIB, flat, place / "later", after=2)
    train_with(36 * MIB, flat, place / "scarce", after=2)
    train_with(8 * MIB, flat, place / "none")
