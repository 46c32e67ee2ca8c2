"""The names of the files that a training keeps, without torch, so that a plan can look at them quickly."""

import re

from gahb.storage.base import Storage

STEP, IMAGES = re.compile(r"step-(\d{9,})\.safetensors"), re.compile(r"images-(\d{12,})\.safetensors")
"""Of checkpoints, and of weights."""

WEIGHT_HISTORY, WEIGHT_HISTORY_0_1 = "weight_history", "course"
"""Folder, among a trial's artifacts, with the weights at every evaluation, named by images seen, and what version 0.1
called it."""


def folder_of(signature: str) -> str:
    """A trial's place in the storage."""
    return f"trials/{signature}"


def names(storage: Storage, folder: str) -> list[str]:
    """The checkpoints in a folder, the oldest first."""
    return [name for name in storage.names(folder) if STEP.fullmatch(name)]


def newest_step(storage: Storage, folder: str) -> int:
    """The step of the newest checkpoint in a folder; 0 if there is none."""
    return max((number(STEP, name) for name in names(storage, folder)), default=0)


def number(pattern: re.Pattern[str], name: str) -> int:
    """The number in a name of a pattern."""
    found = pattern.fullmatch(name)
    assert found
    return int(found[1])
