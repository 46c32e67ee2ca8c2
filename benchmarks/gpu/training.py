"""Trainings as the parts of the battery need them: steps by number, digests of weights, whole trainings."""

import gc
import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from benchmarks.gpu.checks import DEVICE, images
from gahb.models.activation_checkpointing import Level, activation_checkpointing
from gahb.storage.local import Folder
from gahb.training import step
from gahb.trial import Trial

if TYPE_CHECKING:
    from gahb.training import loop
    from gahb.training.checkpoints import Checkpoints


def stepper(trial: Trial, level: Level = "none") -> tuple[Callable[[int], Tensor], nn.Module]:
    """The steps of a new training by number, and its network."""
    step.make_deterministic()
    net, optimizer = step.start(trial, DEVICE)
    activation_checkpointing(net, level)
    return step.stepper(trial, net, optimizer, images(trial), level), net


def train(
    trial: Trial, checkpoints: "Checkpoints | None" = None, options: "loop.Options | None" = None
) -> "loop.Trained":
    """Train to the end, from where the checkpoints stand."""
    from gahb.training import loop  # not where safetensors is missing, which steps do without
    from gahb.training.checkpoints import Checkpoints

    found = images(trial)
    with tempfile.TemporaryDirectory() as folder:
        kept = checkpoints or Checkpoints(Folder(Path(folder)))
        return loop.train(loop.Training(trial, found, found, DEVICE), kept, options)


def digest(net: nn.Module) -> str:
    """Eight hexadecimal digits of the sha256 of a network's weights and running standard deviations."""
    total = hashlib.sha256()
    for _, tensor in sorted(net.state_dict().items()):
        total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()[:8]


def forget() -> None:
    """Give back what no tensor holds any more."""
    gc.collect()
    torch.cuda.empty_cache()


@contextmanager
def memory_fraction(fraction: float) -> Iterator[None]:
    """Within the block this process may take so much of the GPU's memory."""
    torch.cuda.set_per_process_memory_fraction(fraction)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
