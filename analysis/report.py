"""One page that says what a sweep trained and what its analyses found, each beside what the paper found.

What applies to the sweep (each analysis knows that itself, see `catalog`) and has not been asked yet of its finished
trials, with the settings by default, is computed first. The page holds its pictures inside, so it can be sent as one
file; as an artifact it opens in the MLflow UI. It shows these analyses, and of the others in the record the newest of
each kind and name.
"""

import base64
import html
import inspect
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from gahb.cli import say
from gahb.errors import UserError
from gahb.execution.analysis import AnalysisContext, AnalysisResult, Description, Question, description_of, log_result
from gahb.registry import ANALYSES
from gahb.storage.local import content_of
from gahb.tracking import lookup
from gahb.tracking.run import Run

from .scaling import trials_table

LONGEST = 60
"""Rows of the longest table that a page shows; longer ones are artifacts of their analysis."""

LARGEST = 64 << 20
"""Bytes of the largest picture or table that is read."""

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
img { max-width: 100%; } .table { overflow-x: auto; }
table { border-collapse: collapse; font-size: .8rem; font-variant-numeric: tabular-nums; }
td, th { padding: .15rem .6rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
.paper { color: #555; border-left: 3px solid #0072b2; padding-left: .8rem; } code { background: #f3f3f3; }
"""


def run(context: AnalysisContext, *, sweep: str) -> AnalysisResult:
    """The result of `gahb-analyze report` for a sweep in the record."""
    runs = lookup.finished_trials(context.record, sweep)
    asked = [(kind, question) for kind in ANALYSES for question in described(kind).asks(sweep, runs)]
    known = lookup.analyses(context.record, sweep)
    refused: dict[str, str] = {}
    for kind, question in asked:
        if any(answers(analysis, kind, question) for analysis in known):
            continue
        try:
            result = ANALYSES[kind](context, **question.options)
            log_result(context, kind, result, sweep)
            say(result.name)
        except UserError as error:
            refused[f"{kind} of {', '.join(run.name for run in question.runs[:2])}"] = str(error)
    chosen = newest(lookup.analyses(context.record, sweep), asked)
    shown = [(analysis, context.record.artifacts(analysis.run_id)) for analysis in chosen]
    names = [analysis.name for analysis, _ in shown]
    return AnalysisResult(
        name=f"report of {sweep}",
        sweep=sweep,
        runs=runs,
        texts={"report.html": page(sweep, trials_table(context.record, runs), shown, refused)},
        data={"shown": names, "refused": refused},
        lines=[*names, *(f"not {name}: {reason}" for name, reason in refused.items())],
    )


def described(kind: str) -> Description:
    """What is known of a kind of analysis, which a guest that is not here any more may have brought."""
    return description_of(kind, ANALYSES.get(kind))


def answers(analysis: Run, kind: str, question: Question) -> bool:
    """Whether an analysis in the record is of that kind, was computed from the question's runs and has its settings."""
    if analysis.kind != kind or analysis.links != {run.run_id for run in question.runs}:
        return False
    parameters = inspect.signature(ANALYSES[kind]).parameters.values()
    options = {**{p.name: p.default for p in parameters if p.default is not p.empty}, **question.options}
    return all(analysis.params.get(key, str(value)) == str(value) for key, value in options.items())


def newest(analyses: Sequence[Run], asked: Sequence[tuple[str, Question]]) -> list[Run]:
    """Of analyses in the order of time, the last of each kind and name, in the order of ANALYSES; where some of them
    are answers to what is asked, the last of those."""
    last: dict[tuple[str, str], Run] = {}
    answered: set[tuple[str, str]] = set()
    for analysis in analyses:
        key = analysis.kind, analysis.name
        if any(answers(analysis, kind, question) for kind, question in asked):
            answered.add(key)
        elif key in answered:
            continue
        last[key] = analysis
    order = [*ANALYSES, *sorted({kind for kind, _ in last} - set(ANALYSES))]
    return sorted((run for run in last.values() if run.kind != "report"), key=lambda run: order.index(run.kind))


def page(sweep: str, trials: pd.DataFrame, analyses: Sequence[tuple[Run, Path]], refused: Mapping[str, str]) -> str:
    """The page as HTML.

    Args:
        trials: a row a finished trial, as `scaling.trials_table` makes it.
        analyses: the analyses to show and the folders with their artifacts.
        refused: what could not be computed, and why.
    """
    missing = [usage(kind, sweep) for kind in ANALYSES if kind != "report" and not _has(analyses, kind)]
    more = "; ".join(f"<code>gahb-analyze {html.escape(command)}</code>" for command in missing)
    reasons = "".join(f"<li>{html.escape(name)}: {html.escape(reason)}</li>" for name, reason in refused.items())
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(sweep)}</title><style>{STYLE}</style>",
        f"<h1>{html.escape(sweep)}</h1>",
        f"<p>{len(trials)} finished trials. PSNR in dB, averaged over noise levels σ in [0, 1].</p>",
        _table(trials.drop(columns="run_id")),
        *(_section(run, folder) for run, folder in analyses),
        f"<p>Could not be computed:</p><ul>{reasons}</ul>" if reasons else "",
        f"<p>Not asked: {more}.</p>" if more else "",
    ]
    return "\n".join(parts)


def usage(kind: str, sweep: str) -> str:
    """How to ask for an analysis: its command with what it needs."""
    parameters = inspect.signature(ANALYSES[kind]).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty and p.name != "context"]
    return " ".join([kind, *({"sweep": sweep, "sweeps": f"{sweep} OTHER"}.get(name, name.upper()) for name in needed)])


def _has(analyses: Sequence[tuple[Run, Path]], kind: str) -> bool:
    return any(run.kind == kind for run, _ in analyses)


def _section(run: Run, folder: Path) -> str:
    about = described(run.kind)
    pictures = "".join(_picture(file.stem, content) for file, content in _contents(folder, "*.png"))
    contents = [(file, content) for file, content in _contents(folder, "*.csv") if file.stem != "trials"]  # at the top
    tables = [table for file, content in contents if len(table := _read_table(file, content)) <= LONGEST]
    title, reading, paper = map(html.escape, (about.title, about.reading, about.paper))
    found = f"<p class=paper>In the paper: {paper}</p>" if paper else ""
    heading = f"<h2>{title}</h2><p>{html.escape(run.name)}. {reading}</p>"
    return f"{heading}{pictures}{found}{''.join(map(_table, tables))}"


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


def _picture(name: str, content: bytes) -> str:
    return f'<img alt="{html.escape(name)}" src="data:image/png;base64,{base64.b64encode(content).decode()}">'


def _table(table: pd.DataFrame) -> str:
    if not len(table.columns):
        return ""
    return (
        f"<div class=table>{table.to_html(index=False, border=0, float_format=lambda x: f'{x:.3g}', na_rep='–')}</div>"
    )
