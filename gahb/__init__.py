"""Train bias-free denoisers on disjoint subsets of a data set and find where memorisation ends.

The engine: images, models, denoising, training, and what carries it out: `tracking` (MLflow) and `execution` (Ray).
What to train stands in `gahb_sweeps`, what to learn from it in `gahb_analysis`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gahb.api import load

__all__ = ["__version__", "load"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "load":
        from gahb.api import load

        return load
    raise AttributeError(f"module 'gahb' has no attribute {name!r}")
