"""Running out of memory, on a GPU or where a limit is set on a process (a system that overcommits kills instead)."""

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from gahb.models.activation_checkpointing import Level

Result = TypeVar("Result")

PHRASES = ("out of memory", "can't allocate memory", "bad_alloc", "could not create", "ALLOC_FAILED")
"""What torch, oneDNN and CUDA's libraries say in a RuntimeError when they get no memory."""


class OutOfMemory(Exception):
    """A training does not fit even with activation checkpointing. The message says how much it takes without."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that there was no memory left."""
    said = isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in PHRASES)
    return said or isinstance(error, MemoryError | torch.OutOfMemoryError)


def with_less_memory(run: Callable[[Level], Result], need: int, say: Callable[[str], None]) -> Result:
    """run("none"), or run("block"), which holds less, after it ran out of memory.

    Args:
        run: trains at a level of activation checkpointing; called again, it goes on where it stood.
        need: bytes that run("none") takes, for the message.
        say: takes a line when memory ran out.

    Raises:
        OutOfMemory: run("block") ran out of memory too.
    """
    try:
        return run("none")
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    gc.collect()  # only here, where the traceback holds the tensors no longer
    torch.cuda.empty_cache()
    say("out of memory: from here on with activation checkpointing, which is slower and holds less")
    try:
        return run("block")
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(
            f"out of memory even with activation checkpointing; without it training takes about {need / 1e9:.2g} GB: "
            "choose a smaller batch_size or a larger share of the device"
        ) from error
