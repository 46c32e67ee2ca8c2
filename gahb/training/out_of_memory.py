"""Running out of memory, on a GPU or where a limit is set on a process (a system that overcommits kills instead)."""

import gc
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from gahb.models.activation_checkpointing import Level

Result = TypeVar("Result")

PHRASES = (
    "out of memory",
    "can't allocate memory",
    "bad_alloc",
    "could not create",
    "ALLOC_FAILED",
    "ALLOCATION_FAILED",
    "unable to find an engine",
    "CUDNN_STATUS_NOT_INITIALIZED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
)
"""What torch, oneDNN and CUDA's libraries say in a RuntimeError when they get no memory. cuDNN finds no engine where
none gets a workspace, and the libraries are not initialised where their handles get no memory."""


class OutOfMemory(Exception):
    """A training does not fit even with activation checkpointing. The message says how much it takes without."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that there was no memory left."""
    said = isinstance(error, RuntimeError) and any(phrase.lower() in str(error).lower() for phrase in PHRASES)
    return said or isinstance(error, MemoryError | torch.OutOfMemoryError)


def with_less_memory(
    run: Callable[[Level], Result], levels: Sequence[Level], need: int, say: Callable[[str], None]
) -> Result:
    """run(level) at the first of some levels of activation checkpointing at which memory does not run out.

    Args:
        run: trains at a level; called again, it goes on where it stood.
        levels: in the order of falling memory.
        need: bytes that training takes without activation checkpointing, for the message.
        say: takes a line when memory ran out.

    Raises:
        OutOfMemory: it ran out at each.
    """
    level, *rest = levels
    try:
        return run(level)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        if not rest:
            raise OutOfMemory(
                "out of memory even with activation checkpointing; without it training takes about "
                f"{need / 1e9:.2g} GB: choose a smaller batch_size or a larger share of the device "
                f"({str(error).splitlines()[0]})"
            ) from error
    gc.collect()  # only here, where the traceback holds the tensors no longer
    torch.cuda.empty_cache()
    say(f"out of memory: from here on with activation checkpointing ({rest[0]}), which is slower and holds less")
    return with_less_memory(run, rest, need, say)
