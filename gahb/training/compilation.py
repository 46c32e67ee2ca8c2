"""torch.compile, where trials of one kind share what was compiled."""

import os
import shutil
from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

import torch

from gahb.errors import UserError
from gahb.own_folder import use_own_folder

Compiled = TypeVar("Compiled", bound=Callable[..., object])


@lru_cache(maxsize=1)
def compiled(function: Compiled, device: torch.device, *kind: object) -> Compiled:
    """The function compiled for a kind of trial.

    Trials of one kind that a worker trains one after the other share it. That of another kind is thrown away first,
    because torch keeps few of one function and then stops compiling; on the disk it is kept. On a GPU the kernels that
    sum are chosen by rule and not by timing, which differs from machine to machine, if torch can (2.10 and later).

    Raises:
        UserError: no C++ compiler, or a folder for what is compiled that others may change.
    """
    check_compiler()
    use_own_folder()  # torch keeps headers, code and kernels in the temporary folder, and runs what it finds there
    torch.compiler.reset()
    by_rule = device.type == "cuda" and "deterministic" in torch._inductor.list_options()
    return torch.compile(function, dynamic=False, options={"deterministic": True} if by_rule else None)  # type: ignore[return-value]


def check_compiler() -> None:
    """Raise UserError if torch.compile would find no C++ compiler on this machine."""
    compiler = os.environ.get("CXX", "g++")
    if not shutil.which(compiler):
        raise UserError(
            f"compile=true needs a C++ compiler, and there is no {compiler}: install it, or name one in CXX"
        )
