"""Questions to finished trials from Python: `gahb.analyze`, and by their own names the ones that are asked most."""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import EnumType
from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin

from gahb.api import notebook
from gahb.api.place import Place, check_address
from gahb.api.runs import TrialRun
from gahb.api.sweeps import Sweep
from gahb.config_fields import KINDS
from gahb.denoising.sampler import SAMPLES, SEED
from gahb.errors import UserError, did_you_mean
from gahb.registry import ANALYSES

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from gahb.execution.analysis import AnalysisContext, AnalysisResult

LIMITS = {"min": ("at least", operator.lt), "max": ("at most", operator.gt)}
"""What an option of a command says of the numbers that it takes."""


@dataclass(frozen=True)
class Answer:
    """What an analysis found, which is a run of the record too.

    Args:
        kind: the analysis, as `gahb-analyze` names it.
        result: all that it found.
        run_id: MLflow's, of the run.
        folder: with the run's artifacts: tables as CSV, figures as PNG and SVG.
    """

    kind: str
    result: "AnalysisResult"
    run_id: str
    folder: Path

    @property
    def df(self) -> "pd.DataFrame":
        """The first of the tables, which answers the question."""
        return _first(self.tables, f"{self.kind} gives no table")

    @property
    def tables(self) -> Mapping[str, "pd.DataFrame"]:
        """All tables, by name; docs/measures.md says what their columns mean."""
        return self.result.tables

    @property
    def figure(self) -> "Figure":
        """The first of the figures, which answers the question."""
        return _first(self.figures, f"{self.kind} draws no figure")

    @property
    def figures(self) -> Mapping[str, "Figure"]:
        """All figures, by name."""
        notebook.show_figures()
        return self.result.pictures

    @property
    def metrics(self) -> Mapping[str, float]:
        """The run's metrics."""
        return self.result.metrics

    @property
    def data(self) -> Mapping[str, Any]:
        """What `gahb-analyze --json` prints beside the run."""
        return self.result.data

    @property
    def lines(self) -> Sequence[str]:
        """What is to be said of it in words."""
        return self.result.lines

    def __repr__(self) -> str:
        return "\n".join([self.result.name, *self.lines])

    def _repr_html_(self) -> str:
        import pandas as pd

        return notebook.page(
            notebook.heading(self.result.name),
            *(notebook.table(pd.DataFrame(list(rows))) for rows in self.result.shown),
            notebook.lines(self.lines),
            *map(notebook.picture, self.result.pictures.values()),
            *(notebook.frame(text) for file, text in self.result.texts.items() if file.endswith(".html")),
        )


def analyze(
    kind: str,
    *arguments: Any,
    address: str | None = None,
    record: str | None = None,
    storage: str | None = None,
    **options: Any,
) -> Answer:
    """Ask a question of finished trials. The answer is kept as a run of the record.

    Args:
        kind: the analysis, as `gahb-analyze` names it: "pairs", "curves", "basis", "report" …, or a guest's.
        arguments: those of the command: sweeps or runs, by their names or as `load_sweep` and `load_run` give them.
        address: of a Ray cluster for those that spread over one; this machine alone if left out.
        record: the record's URI; that of a sweep or run among the arguments, `MLFLOW_TRACKING_URI` or ./mlflow.db if
            left out.
        storage: the same; `GAHB_STORAGE` or ./gahb-storage if left out.
        options: those of the command, with `_` for `-`.

    Returns:
        the answer, whose `df` and `figure` hold what was found, and `tables` and `figures` all of it.

    Raises:
        UserError: no such analysis, sweep or run, an option that it does not take, or trials that will not do.

    Example:
        >>> answer = gahb.analyze("pairs", "tiny", samples=4)
        >>> answer.df[["pair", "diverged"]]
                pair  diverged
        0   16x16-N1         0
        1  16x16-N64         0
        >>> answer.figure
        <Figure size 880x800 with 6 Axes>
    """
    check_address(address)
    given = ANALYSES.known(kind)
    values = [*arguments, *options.values()]
    found = next((v.place for value in values for v in _each(value) if isinstance(v, Sweep | TrialRun)), None)
    here = Place.at(record, storage) if record or storage or not found else found
    from gahb.execution.analysis import AnalysisContext

    chosen = _options(kind, given, arguments, options)
    with notebook.talk():
        return ask(kind, AnalysisContext.open(here.record.uri, here.storage.uri, address), chosen)


def ask(kind: str, context: "AnalysisContext", options: Mapping[str, Any]) -> Answer:
    """The same, once it is known where, and with which options of its function."""
    from gahb.execution.analysis import AnalysisResult, log_result

    result = ANALYSES[kind](context, **options)
    if not isinstance(result, AnalysisResult):
        raise UserError(f"the analysis {kind!r} returned {type(result).__name__}, which is no AnalysisResult")
    return Answer(kind, result, *log_result(context, kind, result))


def compare(
    run1: str | TrialRun,
    run2: str | TrialRun,
    *,
    samples: int = SAMPLES,
    seed: int = SEED,
    force: bool = False,
    record: str | None = None,
    storage: str | None = None,
    **sampler: Any,
) -> Answer:
    """Sample from two models with the same noise and compare the images (Figure 2).

    `gahb.analyze("pairs", sweep)` compares all pairs of a sweep.

    Args:
        run1, run2: what names the two runs.
        samples: images drawn from each, at least 2.
        seed: of the sampling noise.
        force: compare runs of different, unknown or common images too.
        record, storage: see `analyze`.
        sampler: `h`, `growing`, `beta`, `sigma_start`, `sigma_end`, see `sample`.

    Returns:
        the answer, whose `df` has a row a sample: cosines of the two images, to their closest training images, and of
        images from different noise.

    Raises:
        UserError: no such runs, or runs that are no pair.

    Example:
        >>> answer = gahb.compare("16x16-N64-A", "16x16-N64-B", samples=4)
        >>> bool(answer.df["excess"].mean() > 0)
        True
    """
    drawn = {"samples": samples, "seed": seed, "force": force, **sampler}
    return analyze("pair", run1, run2, record=record, storage=storage, **drawn)


def scaling(
    sweep: str | Sweep,
    *,
    threshold: float = 1.0,
    gap: str = "sigma",
    record: str | None = None,
    storage: str | None = None,
) -> Answer:
    """Draw the PSNR gap against N and find where it closes (Figure 15).

    Args:
        sweep: in the record, finished or under way.
        threshold: the gap in dB that counts as closed.
        gap: average it evenly over σ ("sigma") or over input PSNR ("db").
        record, storage: see `analyze`.

    Returns:
        the answer, whose `df` has a row for each curve and N, and whose `tables["crossings"]` a row a curve: `n_star`,
        where the gap closes, and its 95 % interval `low` to `high`.

    Raises:
        UserError: no such sweep, or no trial of it has finished.

    Example:
        >>> answer = gahb.scaling("tiny")
        >>> answer.df[["curve", "n_train", "trials"]]
           curve  n_train  trials
        0  16×16        1       2
        1  16×16       64       2
    """
    return analyze("scaling", sweep, record=record, storage=storage, threshold=threshold, gap=gap)


def memorization(
    sweep: str | Sweep,
    *,
    samples: int = SAMPLES,
    seed: int = SEED,
    address: str | None = None,
    record: str | None = None,
    storage: str | None = None,
    **sampler: Any,
) -> Answer:
    """Count the samples that are training images, against N and against training time.

    Args:
        sweep: in the record, finished or under way.
        samples: images drawn from each model at each evaluation, at least 2.
        seed: of the sampling noise.
        address, record, storage: see `analyze`.
        sampler: `h`, `growing`, `beta`, `sigma_start`, `sigma_end`, see `sample`.

    Returns:
        the answer, whose `df` has a row a trial with N ≥ 2: the `memorised` fraction at the end and its 95 % interval
        `low` to `high`, and the images seen when a trial generalised, `tau_gen`, and memorised, `tau_mem`.

    Raises:
        UserError: no such sweep, or no trial of it has finished with N ≥ 2.

    Example:
        >>> gahb.memorization("tiny", samples=4).df["name"].tolist()
        ['16x16-N64-A', '16x16-N64-B']
    """
    drawn = {"samples": samples, "seed": seed, **sampler}
    return analyze("memorization", sweep, address=address, record=record, storage=storage, **drawn)


def _options(kind: str, analyse: Any, arguments: Sequence[Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of an analysis, with those that are given by their place, checked as the command checks them."""
    from gahb.cli import parameters_of

    taken = {p.name: p for p in parameters_of(analyse) if p.name != "context"}
    if len(arguments) > len(taken):
        raise UserError(f"{kind} takes {', '.join(taken)}; {len(arguments)} were given")
    given = {**dict(zip(taken, arguments, strict=False)), **options}
    for name in given:
        if name not in taken:
            raise UserError(f"{kind} takes no {name!r}; {did_you_mean(name, taken)}")
    for name, p in taken.items():
        if p.default is Parameter.empty and name not in given:
            raise UserError(f"{kind} needs {name}")
    return {name: _checked(name, value, taken[name]) for name, value in given.items()}


def _checked(name: str, value: Any, p: Parameter) -> Any:
    """A value as the analysis takes it; UserError if it is none that the command's option takes."""
    kinds: Any = _kinds(p.annotation)
    limits = [(*LIMITS[end], x) for info in kinds for end in LIMITS if (x := getattr(info, end, None)) is not None]
    values = [_word(v) for v in _each(value)]
    for v in values:
        for words in (list(map(str, kind)) for kind in kinds if isinstance(kind, EnumType)):
            if v not in words:
                raise UserError(f"{name}={v!r}; {did_you_mean(str(v), words)}")
        for number in {int, float} & {*kinds}:
            if v is not None and (isinstance(v, bool) or not isinstance(v, int | number)):
                raise UserError(f"{name}={v!r}: must be {KINDS[number]}")
        for at, beyond, limit in limits:
            if v is not None and isinstance(limit, int | float) and beyond(v, limit):
                raise UserError(f"{name}={v}: must be {at} {limit:g}")
    if list in kinds:
        return values
    return tuple(values) if isinstance(value, list | tuple) else values[0]


def _kinds(annotation: Any) -> list[Any]:
    """The types of an annotation, and what is said of them: `Annotated[list[int] | None, info]` → list, int, None,
    info, among others."""
    return [get_origin(annotation) or annotation, *(kind for part in get_args(annotation) for kind in _kinds(part))]


def _each(value: Any) -> Sequence[Any]:
    value = value.item() if hasattr(value, "item") else value  # numpy's numbers
    return value if isinstance(value, list | tuple) else [value]


def _word(value: Any) -> Any:
    """What names a sweep or a run; anything else as it is."""
    return value.name if isinstance(value, Sweep) else value.run_id if isinstance(value, TrialRun) else value


def _first(things: Mapping[str, Any], otherwise: str) -> Any:
    for thing in things.values():
        return thing
    raise UserError(otherwise)
