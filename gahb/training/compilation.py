"""torch.compile, where trials of one kind share what was compiled."""

import os
import shutil
from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

import torch

from gahb.errors import UserError

Compiled = TypeVar("Compiled", bound=Callable[..., object])


@lru_cache(maxsize=1)
def compiled(function: Compiled, device: torch.device, *kind: object) -> Compiled:
    """The function compiled for a kind of trial, on a GPU into one graph of launches.

    Trials of one kind that a worker trains one after the other share it. That of another kind is thrown away first,
    because torch keeps few of one function and then stops compiling; on the disk it is kept.

    Raises:
        UserError: no C++ compiler.
    """
    check_compiler()
    torch.compiler.reset()
    mode = "reduce-overhead" if device.type == "cuda" else "default"
    return torch.compile(function, dynamic=False, mode=mode)  # type: ignore[return-value]


def check_compiler() -> None:
    """Raise UserError if torch.compile would find no C++ compiler on this machine."""
    compiler = os.environ.get("CXX", "g++")
    if not shutil.which(compiler):
        raise UserError(
            f"compile=true needs a C++ compiler, and there is no {compiler}: install it, or name one in CXX"
        )
