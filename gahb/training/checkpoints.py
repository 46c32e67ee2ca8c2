"""Checkpoints of a trial in progress: tensors and JSON in safetensors files, which execute nothing when read.

Each file holds the sha256 of what is in it. The last two checkpoints are kept; one that cannot be read, or is not what
was written for this trial, falls back to the one before. Beside them stand the weights at every evaluation, which are
log-spaced in time and all kept.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from gahb.storage.base import Storage
from gahb.storage.local import OddFile
from gahb.storage.retry import is_retryable
from gahb.training.checkpoint_names import IMAGES, STEP, names, newest_step, number

log = logging.getLogger(__name__)

KEPT = 2

MOST_OF_NAMES = 1 << 20
"""Bytes of weights' names and shapes."""


Saved = tuple[int, dict[str, Tensor], dict[str, Any]]
"""The step of a checkpoint, its tensors, on the CPU, and facts."""

Check = Callable[[int, dict[str, Tensor], dict[str, Any]], object]
"""Raises an exception, of any kind, for a checkpoint that is not usable."""


class Damaged(Exception):
    """A file is not what was written."""


class Checkpoints:
    """The checkpoints in a folder of the storage, one file a step: `step-000000600.safetensors`; weights alone in
    `weights/`, named by images seen. While the storage is full or out of reach, training goes on without."""

    def __init__(self, storage: Storage, folder: str = "") -> None:
        self.storage, self.folder = storage, folder
        self._unwritten: dict[str, bytes] = {}

    def save(self, step: int, tensors: dict[str, Tensor], facts: dict[str, Any]) -> bool:
        """Keep the state after `step` steps; older files than the last two go. One that cannot be written now is
        given up, as the next one will do: whether it was written."""
        content = _packed(tensors, {**facts, "step": step})
        try:
            self.storage.write(self._at(f"step-{step:09d}.safetensors"), content)
            for old in self._names()[:-KEPT]:
                self.storage.remove(self._at(old))
            self.flush()
        except OSError as error:
            if not is_retryable(error):
                raise
            log.warning("no checkpoint at step %d: %s; training goes on", step, error)
            return False
        return True

    def save_weights(self, images_seen: int, weights: dict[str, Tensor]) -> float:
        """Keep weights alone, for the weight history, and return when that was done first, in seconds since 1970: a
        training that starts again finds what an earlier one left. What cannot be written now will be with the next
        checkpoint or `flush`."""
        name = self._at(f"weights/images-{images_seen:012d}.safetensors")
        self._unwritten[name] = _packed(weights, {})
        try:
            self.flush()
        except OSError as error:
            if not is_retryable(error):
                raise
            log.warning("the weights after %d images cannot be kept yet: %s", images_seen, error)
            return time.time()
        return self.storage.modified(name) or time.time()

    def flush(self) -> None:
        """Write what could not be written before. Raises OSError."""
        for name in list(self._unwritten):
            if not self.storage.create(name, self._unwritten[name]) and not self._is_whole(name):
                self.storage.write(name, self._unwritten[name])
            del self._unwritten[name]

    @property
    def step(self) -> int:
        """The step of the newest checkpoint; 0 if there is none."""
        return newest_step(self.storage, self.folder)

    def latest(self, check: Check = lambda step, tensors, facts: None, most: int | None = None) -> Saved | None:
        """The newest checkpoint that is readable and usable, or None.

        Args:
            check: of what is usable.
            most: bytes that one may have.

        Raises:
            OSError: the storage is out of reach.
        """
        for name in reversed(self._names()):
            try:
                tensors, facts = _unpacked(self.storage.read(self._at(name), most))
                _check(number(STEP, name), tensors, facts, check)
            except (Damaged, OddFile, FileNotFoundError) as error:
                log.warning("checkpoint %s cannot be read (%s); falling back to the one before", name, error)
            else:
                return facts["step"], tensors, facts
        return None

    def copy_weights(self, other: "Checkpoints", images_seen: Iterable[int]) -> None:
        """Take the weights after these numbers of images from another training. Raises OSError."""
        for images in images_seen:
            name = f"weights/images-{images:012d}.safetensors"
            try:
                self.storage.create(self._at(name), other.storage.read(other._at(name)))
            except (FileNotFoundError, OddFile) as error:
                log.warning("weights after %d images cannot be had (%s) and are left out", images, error)

    def weight_history(self, like: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
        """Images seen → weights, of every evaluation that was kept and has the names and shapes of the last. Raises
        OSError."""
        most = sum(tensor.numel() * tensor.element_size() for tensor in like.values()) + MOST_OF_NAMES
        found = {}
        for name in filter(IMAGES.fullmatch, self.storage.names(self._at("weights"))):
            try:
                weights, _ = _unpacked(self.storage.read(self._at(f"weights/{name}"), most))
                if {key: t.shape for key, t in weights.items()} != {key: t.shape for key, t in like.items()}:
                    raise Damaged("they are another network's")
            except (Damaged, OddFile) as error:
                log.warning("weights %s cannot be read (%s) and are left out", name, error)
            else:
                found[number(IMAGES, name)] = weights
        return found

    def _is_whole(self, name: str) -> bool:
        try:
            _unpacked(self.storage.read(name))
        except (Damaged, OddFile):
            return False
        return True

    def _at(self, name: str) -> str:
        return f"{self.folder}/{name}".lstrip("/")

    def _names(self) -> list[str]:
        return names(self.storage, self.folder)


def _packed(tensors: dict[str, Tensor], facts: dict[str, Any]) -> bytes:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(facts)
    return save(tensors, metadata={"facts": text, "sha256": _digest(tensors, text)})


def _unpacked(content: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and facts of a file. Raises Damaged."""
    try:
        tensors = load(content)
        length = int.from_bytes(content[:8], "little")
        about = json.loads(content[8 : 8 + length])["__metadata__"]
        expected, facts = _digest(tensors, about["facts"]), json.loads(about["facts"])
    except Exception as error:  # of many kinds
        raise Damaged(f"{type(error).__name__}: {error}") from None
    if about.get("sha256") != expected:
        raise Damaged("its checksum differs")
    return tensors, facts


def _check(step: int, tensors: dict[str, Tensor], facts: Any, check: Check) -> None:
    """Raise Damaged for what is not usable at that step."""
    try:
        if type(facts["step"]) is not int or facts["step"] != step:
            raise Damaged(f"its step is {facts['step']!r}")
        check(step, tensors, facts)
    except Damaged:
        raise
    except Exception as error:  # of many kinds
        raise Damaged(f"{type(error).__name__}: {error}") from None


def _digest(tensors: dict[str, Tensor], facts: str) -> str:
    total = hashlib.sha256(facts.encode())
    for name in sorted(tensors):
        total.update(name.encode())
        total.update(tensors[name].flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()
