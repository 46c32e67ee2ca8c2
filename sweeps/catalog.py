"""The sweeps by name."""

import re
from types import ModuleType

from gahb.errors import UserError, did_you_mean

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

SWEEPS: dict[str, ModuleType] = {
    module.__name__.rpartition(".")[2]: module
    for module in (
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
    )
}
"""Each module has FIGURES (the paper's figures and tables it reproduces), SMALL (the overrides of its small variant), a
docstring that opens with a description of one line and says the cost, and `trials(overrides)`."""


def sweep(name: str) -> ModuleType:
    """The module of a sweep.

    Raises:
        UserError: no sweep of that name.
    """
    if name not in SWEEPS:
        raise UserError(f"no sweep {name!r}; {did_you_mean(name, SWEEPS)}")
    return SWEEPS[name]


def description(name: str) -> str:
    """The first line of a sweep's docstring."""
    return (SWEEPS[name].__doc__ or "").splitlines()[0]


def cost(name: str) -> str:
    """What a sweep costs, as its docstring says: "12 trials of 2.5·10⁸ images, 6·10¹⁹ FLOPs in all"."""
    found = re.search(r"Cost: (.* FLOPs in all)", SWEEPS[name].__doc__ or "", re.DOTALL)
    assert found is not None
    return " ".join(found[1].split())
