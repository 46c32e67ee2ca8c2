"""Train bias-free denoisers on disjoint subsets of a data set and find where memorisation ends.

The engine: images, models, denoising, training, and what carries it out: `tracking` (MLflow) and `execution` (Ray).
What to train stands in `gahb_sweeps`, what to learn from it in `gahb_analysis`. From Python::

    import gahb

    sweep = gahb.launch("transition", dataset="/data/faces.zip", resolution=20, n_train=[10, 100, 1000], name="faces")
    gahb.scaling(sweep).figure
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gahb.api import (
        Answer,
        Plan,
        Sweep,
        Trial,
        TrialRun,
        UserError,
        analyze,
        compare,
        grid,
        launch,
        load,
        load_images,
        load_run,
        load_sweep,
        memorization,
        plan,
        psnr_curve,
        sample,
        scaling,
        show_images,
        spectrum,
    )

__all__ = [
    "Answer",
    "Plan",
    "Sweep",
    "Trial",
    "TrialRun",
    "UserError",
    "__version__",
    "analyze",
    "compare",
    "grid",
    "launch",
    "load",
    "load_images",
    "load_run",
    "load_sweep",
    "memorization",
    "plan",
    "psnr_curve",
    "sample",
    "scaling",
    "show_images",
    "spectrum",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'gahb' has no attribute {name!r}{_hint(name)}")
    from gahb import api  # all else waits until something is used

    return getattr(api, name)


def _hint(name: str) -> str:
    """What may have been meant; nothing for a module that is not imported yet, or what only machines ask for."""
    from importlib.util import find_spec

    if name.startswith("_") or find_spec(f"{__name__}.{name}"):
        return ""
    from gahb.errors import did_you_mean
    from gahb.registry import ANALYSES

    return f"; gahb.analyze({name!r}, …) asks it" if name in ANALYSES else f"; {did_you_mean(name, __all__)}"


def __dir__() -> list[str]:
    return __all__
