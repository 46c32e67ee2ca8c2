"""The sweeps by name."""

import re
from pathlib import Path
from typing import Any

from gahb.errors import UserError, did_you_mean
from gahb.registry import SWEEPS, load_file
from gahb.training import cost as costs
from gahb.trial import Trial

from . import (
    architecture,
    bf_cnn_transition,
    c_alpha_slopes,
    contour_regularity,
    demo,
    disks,
    resolution_scaling,
    shuffled_faces,
    single_image_ray,
    sinusoids,
    transition,
)

for _module in (
    demo,
    transition,
    bf_cnn_transition,
    resolution_scaling,
    c_alpha_slopes,
    contour_regularity,
    disks,
    single_image_ray,
    sinusoids,
    shuffled_faces,
    architecture,
):
    SWEEPS.add(_module.__name__.rpartition(".")[2], _module)


def find(name: str) -> str:
    """The name of the sweep that a user means: a name, or the path of a file with a function `trials`, which is loaded.

    Raises:
        UserError: no such sweep, or a file that will not do.
    """
    if name.endswith(".py"):
        origin, stem = load_file(name), Path(name).stem
        if stem not in SWEEPS or SWEEPS.origin(stem) != origin:
            raise UserError(f"{name} has no function trials(overrides), so it is no sweep")
        return stem
    if name not in SWEEPS:
        raise UserError(f"no sweep {name!r}; {did_you_mean(name, SWEEPS)}")
    return name


def trials(name: str, overrides: dict[str, Any] | None = None, *, small: bool = False) -> list[Trial]:
    """The trials of a sweep.

    Args:
        overrides: settings in place of the sweep's.
        small: of its small variant.

    Raises:
        UserError: an override that it does not take, no small variant, or a guest's sweep that does not fulfil its
            contract.
    """
    sweep = SWEEPS[name]
    variant = getattr(sweep, "SMALL", None)
    if small and variant is None:
        raise UserError(f"the sweep {name!r} has no small variant; leave out --small")
    settings = {**(variant if small and variant else {}), **(overrides or {})}
    if not SWEEPS.guest(name):
        return list(sweep.trials(settings))
    what = f"the sweep {name!r} of {SWEEPS.origin(name)}"
    try:
        found = list(sweep.trials(settings))
    except UserError:
        raise
    except Exception as error:  # a guest's function may raise anything
        raise UserError(f"{what}: trials(overrides) raised {type(error).__name__}: {error}") from None
    if not found or not all(isinstance(trial, Trial) for trial in found):
        raise UserError(f"{what}: trials(overrides) must return trials, at least one, such as gahb.grids.grid makes")
    return found


def figures(name: str) -> str:
    """The figures that a sweep reproduces; "–" if it does not say."""
    return getattr(SWEEPS[name], "FIGURES", "–")


def description(name: str) -> str:
    """The first line of a sweep's docstring."""
    lines = (SWEEPS[name].__doc__ or "").strip().splitlines()
    return lines[0] if lines else "–"


def cost(name: str) -> str:
    """What a sweep costs, as its docstring says, or else as it is counted: "12 trials of 2.5·10⁸ images, 6·10¹⁹ FLOPs
    in all"."""
    found = re.search(r"Cost: (.* FLOPs in all)", SWEEPS[name].__doc__ or "", re.DOTALL)
    if found:
        return " ".join(found[1].split())
    own = trials(name)
    return f"{len(own)} trials, {sum(map(costs.training_flops, own)):.1e} FLOPs in all"
