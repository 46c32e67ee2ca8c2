"""What an analysis works with, what it answers, and how the result enters the record.

An analysis is a function `run(context, …)` that returns an `AnalysisResult`; what a report needs to know of it besides
stands in its `Description`. `log_result` makes of a result one run in the experiment `<sweep>-analysis`, with tables,
figures and links to what it was computed from. The command and the report go through these alone.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from gahb import progress
from gahb.child import uninterrupted
from gahb.cli import say
from gahb.storage.base import Storage, record_uri, storage_here
from gahb.tracking.run import Run, Tag, analyses_of, link, member_of

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from gahb.tracking.record import Record

Item = TypeVar("Item")
Result = TypeVar("Result")

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet's formula begins with."""


@dataclass(frozen=True)
class AnalysisContext:
    """Where models and images are found, and where to compute.

    Args:
        uri: of the record.
        storage: where prepared images are.
        device: where this process computes.
        address: a Ray cluster for `map_on_cluster`; this machine alone if left out.
    """

    uri: str
    storage: Storage
    device: "torch.device"
    address: str | None = None

    @classmethod
    def open(cls, record: str | None, storage: str | None, address: str | None = None) -> "AnalysisContext":
        """The context that the options of a command describe, on a GPU if there is one."""
        import torch

        from gahb import hardware

        hardware.keep_freed_memory()
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return cls(record_uri(record), storage_here(storage), device, address)

    @cached_property
    def record(self) -> "Record":
        from gahb.tracking.record import Record

        return Record(self.uri, self.storage.url)

    def map_on_cluster(
        self,
        function: Callable[["AnalysisContext", Item], Result],
        items: Sequence[Item],
        names: Sequence[str],
        found: Callable[[Result], str] = lambda result: "",
    ) -> list[Result]:
        """`function(context, item)` of every item, as Ray tasks, each with a core and, where there are any, a GPU. A
        line with its name, and what `found` has to say of it, tells when each is done.

        Raises:
            UserError: what the function raises of that kind; a cluster out of reach.
        """
        from gahb.execution import connection, own_node, ray_cluster

        done: dict[int, Result] = {}
        with (
            connection.connected(self.address),
            own_node.watched(),
            progress.bar("tasks", len(items)) as advance,
        ):
            work = [(function, replace(self), item) for item in items]
            for i, result in ray_cluster.map_unordered(_on_worker, work, say=say):
                done[i] = result
                say(f"[{len(done)}/{len(items)}] {names[i]}{found(result)}")
                advance(1)
        return [done[i] for i in range(len(items))]


def _on_worker(
    work: tuple[Callable[[AnalysisContext, Item], Result], AnalysisContext, Item], device: "torch.device"
) -> Result:
    function, context, item = work
    return function(replace(context, device=device), item)


@dataclass(frozen=True, kw_only=True)
class AnalysisResult:
    """What an analysis found.

    Args:
        name: the run's name.
        runs: what it was computed from; each is linked by a tag.
        sweep: the sweep that it is about, if it is about one.
        settings: its params.
        metrics: its numbers.
        by_n: run id → numbers of that trial, which the MLflow UI shows against N.
        tables: file stem → table, kept as CSV.
        pictures: file stem → figure, kept as PNG and as SVG, for print.
        arrays: file stem → name → array, kept as safetensors.
        texts: file name → content.
        data: what `--json` prints beside the run.
        shown: the tables that are printed.
        lines: what is printed after them.
    """

    name: str
    runs: Sequence[Run]
    sweep: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    by_n: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    tables: Mapping[str, "pd.DataFrame"] = field(default_factory=dict)
    pictures: Mapping[str, "Figure"] = field(default_factory=dict)
    arrays: Mapping[str, Mapping[str, "NDArray[Any]"]] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, Any]
    shown: Sequence[Sequence[dict[str, Any]]] = ()
    lines: Sequence[str] = ()

    @property
    def of_sweep(self) -> str:
        """The sweep that it is about, or else the first run's."""
        return self.sweep or self.runs[0].sweeps[0]


@dataclass(frozen=True)
class Question:
    """An analysis to be asked of finished trials.

    Args:
        options: of its `run`; those left out have their defaults.
        runs: what it will be computed from.
    """

    options: Mapping[str, Any]
    runs: Sequence[Run]


@dataclass(frozen=True)
class Stated:
    """An analysis that a sweep states in its `ANALYSES`: with which settings it makes the sweep's figures.

    A report asks these in place of what it asks of that kind by default. Where no trial is one that they are about, as
    when a sweep was launched with other settings, it asks that.

    Args:
        kind: the analysis, as the command names it.
        options: of its `run`, in place of the defaults.
        of: which trials it is about, for an analysis of a run: those whose keys have these values; all if left out.
        together: ask of all these trials at once, for an analysis whose `runs` may be several.
    """

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    of: Mapping[str, Any] = field(default_factory=dict)
    together: bool = False


@dataclass(frozen=True)
class Description:
    """What a report and the command line need to know of an analysis.

    Args:
        title: its heading.
        reading: how to read its pictures.
        paper: what the paper found.
        asks: what a report asks it of a sweep's finished trials: (sweep, runs) ↦ questions.
        by_default: whether a report asks it of every sweep, rather than of those alone that state it.
        on_cluster: whether it spreads over a Ray cluster (`AnalysisContext.map_on_cluster`), and so takes an address.
        panel: under which heading of the help its command stands.
        examples: command lines that its help shows.
    """

    title: str
    reading: str = ""
    paper: str = ""
    asks: Callable[[str, Sequence[Run]], Sequence[Question]] = lambda sweep, runs: ()
    by_default: bool = True
    on_cluster: bool = False
    panel: str = "Plugins"
    examples: Sequence[str] = ()


AnalysisRun = TypeVar("AnalysisRun", bound=Callable[..., AnalysisResult])


def described(title: str, **more: Any) -> Callable[[AnalysisRun], AnalysisRun]:
    """A decorator that gives an analysis its `Description`."""

    def decorate(run: AnalysisRun) -> AnalysisRun:
        run.description = Description(title, **more)  # type: ignore[attr-defined]
        return run

    return decorate


def description_of(kind: str, run: Callable[..., AnalysisResult] | None) -> Description:
    """The description of an analysis; one that has none is told by its kind and its docstring's first line."""
    lines = ((run.__doc__ if run else "") or "").strip().splitlines()
    return getattr(run, "description", None) or Description(kind, lines[0] if lines else "")


def log_result(
    context: AnalysisContext, kind: str, result: AnalysisResult, sweep: str | None = None
) -> tuple[str, Path]:
    """Log a result; returns its run id and the folder with its artifacts. An interruption waits until it is there.

    Args:
        kind: the analysis, as the command names it.
        sweep: whose experiment it joins; the result's, `of_sweep`, if left out.
    """
    from PIL import Image
    from safetensors.numpy import save_file

    from gahb.figures import style
    from gahb.tracking import links, notes
    from gahb.tracking.record_writer import RecordWriter

    sweep = sweep or result.of_sweep
    tags = {
        Tag.KIND: kind,
        **member_of(sweep),
        **{link(i): run.run_id for i, run in enumerate(result.runs)},
        Tag.PICTURES: " ".join(result.pictures),
        **notes.of_analysis(kind, result.runs),
    }
    record = RecordWriter(context.uri, context.storage.url)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for stem, table in result.tables.items():
            no_formulas(table).to_csv(folder / f"{stem}.csv", index=False)
        for stem, picture in result.pictures.items():
            for suffix in ("png", "svg"):
                style.save(picture, folder / f"{stem}.{suffix}")
        for stem, arrays in result.arrays.items():
            save_file(dict(arrays), folder / f"{stem}.safetensors")
        for file, text in result.texts.items():
            (folder / file).write_text(text)
        with uninterrupted():
            run_id = record.create(analyses_of(sweep), result.name, params=result.settings, tags=tags)
            record.add_artifacts(run_id, folder)
            record.add_images(run_id, ((stem, 0, Image.open(folder / f"{stem}.png")) for stem in result.pictures))
            record.log_metrics(run_id, result.metrics)
            record.finish(run_id)
            links.lead_back(record, kind, run_id, sweep, result.runs, result.by_n)
    return run_id, record.artifacts(run_id, keep=True)


def no_formulas(table: "pd.DataFrame") -> "pd.DataFrame":
    """The table with an apostrophe before texts that a spreadsheet would take for formulas."""
    return table.map(lambda cell: f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell)


def rows_of(table: "pd.DataFrame") -> list[dict[str, Any]]:
    """Rows of plain values, None for NaN."""
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return [{str(k): v.item() if hasattr(v, "item") else v for k, v in row.items()} for row in rows]
