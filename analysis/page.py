"""The page of a report as HTML, in light, dark and print: the answers, contents, a section an analysis, the trials.

`report.html` beside this module is its template. All that a record names is escaped: by jinja2 in the page, and once
more for plotly, which reads HTML in its labels. With plotly installed (`gahb[report]`) its bundle stands in the page
once, packed, and draws the figures that `interactive` knows in place of their pictures, which are printed.
"""

import base64
import gzip
import importlib.util
import inspect
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader

from gahb.cli import say
from gahb.errors import UserError
from gahb.execution.analysis import Description, description_of
from gahb.registry import ANALYSES
from gahb.storage.local import content_of
from gahb.tracking.run import Run

from . import pairs, scaling

LONGEST = 60
"""Rows of the longest table that a page shows; longer ones are artifacts of their analysis."""

LARGEST = 64 << 20
"""Bytes of the largest picture or table that is read."""


ANSWERS: Mapping[str, Callable[[Mapping[str, pd.DataFrame]], list[str]]] = {
    "scaling": lambda tables: scaling.in_words(tables["scaling"], tables["crossings"], tables["trials"]),
    "pairs": lambda tables: pairs.in_words(tables["n_overtake"]),
}
"""Kind of analysis → what it answers, from its tables; a page opens with these."""


@dataclass(frozen=True)
class Section:
    """An analysis on the page.

    Args:
        anchor: of its heading.
        kind: the analysis, as the command names it.
        about: what is known of its kind.
        name: of its run.
        settings: of its run.
        pictures: file stem → PNG, in base64.
        tables: file stem → table, of those that are shown.
        answers: what it answers, in words.
        figure: what plotly draws: data, layout and frames; None if there is nothing.
        whole: whether that stands in the place of the pictures, rather than above them.
    """

    anchor: str
    kind: str
    about: Description
    name: str
    settings: Mapping[str, Any]
    pictures: Mapping[str, str]
    tables: Mapping[str, pd.DataFrame]
    answers: Sequence[str]
    figure: Mapping[str, Any] | None
    whole: bool


def page(
    sweep: str,
    trials: pd.DataFrame,
    analyses: Sequence[tuple[Run, Path]],
    refused: Mapping[str, str],
    unfinished: Sequence[str] = (),
) -> str:
    """The page as HTML.

    Args:
        trials: a row a finished trial, as `scaling.trials_table` makes it.
        analyses: the analyses to show and the folders with their artifacts.
        refused: what could not be computed, and why.
        unfinished: lines on what is not finished.
    """
    interactive = importlib.util.find_spec("plotly") is not None
    sections = [_section(f"analysis-{i}", *analysis, interactive) for i, analysis in enumerate(analyses)]
    shown = {run.kind for run, _ in analyses}
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, loader=PackageLoader(__package__, "")
    )
    return environment.get_template("report.html").render(
        sweep=sweep,
        trials=trials.drop(columns="run_id"),
        sections=sections,
        answers=[line for kind in ANSWERS for section in sections if section.kind == kind for line in section.answers],
        refused=refused,
        unfinished=unfinished,
        missing=[usage(kind, sweep) for kind in ANALYSES if kind != "report" and kind not in shown],
        longest=LONGEST,
        cell=cell,
        bundle=_bundle() if any(section.figure for section in sections) else "",
    )


def cell(value: Any) -> str:
    """A table's entry: numbers with three digits, a dash for what is not known."""
    if pd.isna(value):
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def usage(kind: str, sweep: str) -> str:
    """How to ask for an analysis: its command with what it needs."""
    parameters = inspect.signature(ANALYSES[kind]).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty and p.name != "context"]
    words = {"sweep": sweep, "sweeps": f"{sweep} OTHER", "runs": "RUN"}
    return " ".join([kind, *(words.get(name, name.upper()) for name in needed)])


def described(kind: str) -> Description:
    """What is known of a kind of analysis, which a guest that is not here any more may have brought."""
    return description_of(kind, ANALYSES.get(kind))


def _section(anchor: str, run: Run, folder: Path, interactive: bool) -> Section:
    pictures = {file.stem: base64.b64encode(content).decode() for file, content in _contents(folder, "*.png")}
    tables = {file.stem: _read_table(file, content) for file, content in _contents(folder, "*.csv")}
    figure, whole = _figure(run.kind, tables) if interactive else (None, False)
    shown = {stem: table for stem, table in tables.items() if stem != "trials" and 0 < len(table) <= LONGEST}
    answers = _answers(run.kind, tables)
    return Section(anchor, run.kind, described(run.kind), run.name, run.params, pictures, shown, answers, figure, whole)


def _answers(kind: str, tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """What an analysis answers; nothing of a kind that has no one answer, or whose tables are not as they are made
    here."""
    try:
        return ANSWERS[kind](tables) if kind in ANSWERS else []
    except (LookupError, ValueError, TypeError) as error:
        say(f"no answer of {kind} in words: {error}")
        return []


def _figure(kind: str, tables: Mapping[str, pd.DataFrame]) -> tuple[dict[str, Any] | None, bool]:
    """What plotly draws of an analysis, and whether that is the whole of its picture; nothing of a kind that has no
    such figure, or whose tables are not as they are made here."""
    from . import interactive

    try:
        if kind in interactive.FIGURES:
            return json.loads(interactive.FIGURES[kind](tables).to_json()), kind in interactive.WHOLE
    except (LookupError, ValueError, TypeError) as error:
        say(f"no interactive figure of {kind}: {error}")
    return None, False


def _bundle() -> str:
    """plotly's script, packed by gzip, in base64: 2 MB for 4.8 MB."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()


def _contents(folder: Path, pattern: str) -> list[tuple[Path, bytes]]:
    """The files that match in a folder, with what is in them; a line tells of those that are no plain files, or too
    large."""
    found = []
    for file in sorted(folder.glob(pattern)):
        try:
            found.append((file, content_of(file, LARGEST)))
        except (OSError, UserError) as error:
            say(f"left out: {error}")
    return found


def _read_table(file: Path, content: bytes) -> pd.DataFrame:
    """A table of an analysis; an empty one, and a line, if it is none."""
    try:
        return pd.read_csv(io.BytesIO(content))
    except ValueError as error:
        say(f"left out: {file} is no table ({error})")
        return pd.DataFrame()
