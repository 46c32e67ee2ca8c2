"""What a guest of gahb imports: the contracts that it fulfils, and how it registers what it brings.

    a data set       a frozen dataclass derived from `Synthetic` (images that are drawn without end), `Manifold` (with a
                     tangent space) or `Source` (any other), with a name
    an architecture  a frozen dataclass derived from `Architecture`, with a name and `build()`
    a sweep          a module, or whatever has `trials(overrides)`: `Sweep`
    an analysis      a function `run(context, …)` that returns an `AnalysisResult`: `Analysis`; its parameters become
                     the command's arguments, those with a default its options; `described` says more of it

An installed package names them in its entry points, groups `gahb.datasets`, `gahb.architectures`, `gahb.sweeps` and
`gahb.analyses`. A file that is given by `--plugin FILE.py`, or in the place of a sweep's name, calls the functions
`register_…` below; of its own functions `trials` is a sweep and `run` an analysis, named like the file.

A guest's name and version are part of the signature of the trials that use its data set or architecture, for a file
the hash of its content. Guests travel to the workers of a cluster; what else they import must be installed there.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from gahb import registry
from gahb.data.manifold import Manifold
from gahb.data.source import CHUNK, Rendered, Source, Synthetic, new_images
from gahb.data.sources import DATASETS
from gahb.errors import UserError
from gahb.execution.analysis import AnalysisContext, AnalysisResult, Question, Stated, described
from gahb.models.architectures import ARCHITECTURES, Architecture
from gahb.models.layer_costs import Layer
from gahb.registry import ANALYSES, SWEEPS, Origin
from gahb.tracking.lookup import finished_trial, finished_trials
from gahb.trial import Trial

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "CHUNK",
    "Analysis",
    "AnalysisContext",
    "AnalysisResult",
    "Architecture",
    "Layer",
    "Manifold",
    "Question",
    "Rendered",
    "Source",
    "Stated",
    "Sweep",
    "Synthetic",
    "UserError",
    "described",
    "finished_trial",
    "finished_trials",
    "load_file",
    "new_images",
    "register_analysis",
    "register_architecture",
    "register_dataset",
    "register_sweep",
]

SourceClass = TypeVar("SourceClass", bound=type[Source])
ArchitectureClass = TypeVar("ArchitectureClass", bound=type[Architecture])


class Sweep(Protocol):
    """What a sweep offers: `trials`. It may also have `FIGURES`, a word or two on what it reproduces; `SMALL`, the
    overrides of its small variant; `ANALYSES`, a list of what a report asks of it in place of the defaults, each a
    `Stated`; and a docstring, whose first line describes it and which may say its cost after "Cost:"."""

    def trials(self, overrides: Mapping[str, Any] | None = None) -> list[Trial]:
        """Its trials, with settings in place of its own; `gahb.grids.grid` takes them as they come."""


class Analysis(Protocol):
    """What an analysis offers: to be called with an `AnalysisContext` and its options by name."""

    def __call__(self, context: AnalysisContext, **options: Any) -> AnalysisResult:
        """The result, which is kept as a run of the record."""


def register_dataset(source: SourceClass) -> SourceClass:
    """Register a data set under its `name`; a decorator.

    Raises:
        UserError: as all `register_…`: no plugin file is being loaded, the contract is not fulfilled, or another has
            the name or one of the keys.
    """
    registry.register(DATASETS, getattr(source, "name", source.__name__), source)
    return source


def register_architecture(architecture: ArchitectureClass) -> ArchitectureClass:
    """Register an architecture under its `name`; a decorator."""
    registry.register(ARCHITECTURES, getattr(architecture, "name", architecture.__name__), architecture)
    return architecture


def register_sweep(name: str, sweep: Sweep) -> None:
    """Register a sweep."""
    registry.register(SWEEPS, name, sweep)


def register_analysis(name: str, run: Callable[..., AnalysisResult]) -> None:
    """Register an analysis, which becomes the command `gahb-analyze <name>`."""
    registry.register(ANALYSES, name, run)


def load_file(path: "str | Path") -> Origin:
    """Load a plugin file from Python, as `--plugin` does.

    Raises:
        UserError: no such file, one that raises or that brings nothing, or what `register_…` refuse.
    """
    return registry.load_file(path)
