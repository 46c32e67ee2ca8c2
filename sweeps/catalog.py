"""The sweeps by name."""

import re

from gahb.planning.sweeps import sweep_trials
from gahb.quantities import scientific
from gahb.registry import SWEEPS
from gahb.training import cost as costs

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
    own = sweep_trials(name)
    return f"{len(own)} trials, {scientific(sum(map(costs.training_flops, own)))} FLOPs in all"
