"""One page that says what a sweep trained and what its analyses found, each beside what the paper found.

What applies to the sweep and has not been asked yet of its finished trials is computed first. What applies each
analysis knows itself (see `catalog`), with the settings by default; the analyses that a sweep states for its figures
(`ANALYSES` of its module) are asked in their place. The page holds its pictures inside, so it can be sent as one
file; as an artifact it opens in the MLflow UI. It shows these analyses, and of the others in the record the newest of
each kind and name.
"""

import base64
import html
import inspect
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from gahb.cli import say
from gahb.errors import UserError, did_you_mean
from gahb.execution.analysis import (
    AnalysisContext,
    AnalysisResult,
    Description,
    Question,
    Stated,
    description_of,
    log_result,
)
from gahb.registry import ANALYSES, SWEEPS
from gahb.storage.local import content_of
from gahb.tracking import lookup
from gahb.tracking.run import Run

from .scaling import trials_table
from .underway import trials_of

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
    trials = trials_of(context, sweep)
    runs = trials.finished
    stated = stated_by(runs[0].launched(sweep))
    asked = [(kind, question) for kind in ANALYSES for question in questions(kind, sweep, runs, stated)]
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
        texts={"report.html": page(sweep, trials_table(context.record, runs), shown, refused, trials.lines)},
        data={"shown": names, "refused": refused, "unfinished": trials.rows},
        lines=[*names, *(f"not {name}: {reason}" for name, reason in refused.items()), *trials.lines],
    )


def stated_by(sweep: str) -> list[Stated]:
    """The analyses that a sweep states, as `gahb-sweep list` names it; none if it does not, or is not here.

    Raises:
        UserError: something else than `Stated`, an analysis that is not here, or an option that it has not.
    """
    found = list(getattr(SWEEPS.get(sweep), "ANALYSES", ()))
    for stated in found:
        what = f"the sweep {sweep!r} of {SWEEPS.origin(sweep)}: its ANALYSES"
        if not isinstance(stated, Stated):
            raise UserError(f"{what} are gahb.plugins.Stated, and {stated!r} is not")
        if stated.kind not in ANALYSES:
            raise UserError(f"{what} name the analysis {stated.kind!r}; {did_you_mean(stated.kind, ANALYSES)}")
        parameters = inspect.signature(ANALYSES[stated.kind]).parameters
        for option in stated.options.keys() - parameters.keys():
            raise UserError(f"{what}: {stated.kind} has no option {option!r}; {did_you_mean(option, parameters)}")
    return found


def questions(kind: str, sweep: str, runs: Sequence[Run], stated: Sequence[Stated]) -> list[Question]:
    """What is asked of a sweep's finished trials: what is stated of that kind of analysis, or else its defaults."""
    about_kind, found = described(kind), list[Question]()
    for own in stated:
        about = [run for run in runs if own.of.items() <= run.flat.items()]
        if own.kind == kind and about:
            asked = [Question({**q.options, **own.options}, q.runs) for q in about_kind.asks(sweep, about)]
            found += [_together(asked)] if own.together and asked else asked
    return found or (list(about_kind.asks(sweep, runs)) if about_kind.by_default else [])


def _together(asked: Sequence[Question]) -> Question:
    """One question of the runs of several, in the order of their names."""
    runs = sorted((run for question in asked for run in question.runs), key=lambda run: run.name)
    return Question({**asked[0].options, "runs": [run.run_id for run in runs]}, runs)


def described(kind: str) -> Description:
    """What is known of a kind of analysis, which a guest that is not here any more may have brought."""
    return description_of(kind, ANALYSES.get(kind))


def answers(analysis: Run, kind: str, question: Question) -> bool:
    """Whether an analysis in the record is of that kind, was computed from the question's runs and has its settings."""
    if analysis.kind != kind or analysis.links != {run.run_id for run in question.runs}:
        return False
    parameters = inspect.signature(ANALYSES[kind]).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    options = {**defaults, **question.options}
    return all(analysis.params.get(key, str(defaults.get(key, o))) == str(o) for key, o in options.items())


def newest(analyses: Sequence[Run], asked: Sequence[tuple[str, Question]]) -> list[Run]:
    """Of analyses in the order of time, the last answer to each question, and of those that answer none the last of
    each kind and name, unless an answer has these or, for a pair, holds it; in the order of ANALYSES."""
    answer: dict[int, Run] = {}
    other: dict[tuple[str, str], Run] = {}
    for analysis in analyses:
        answered = [i for i, question in enumerate(asked) if answers(analysis, *question)]
        answer.update(dict.fromkeys(answered, analysis))
        if not answered:
            other[analysis.kind, analysis.name] = analysis
    taken = {(run.kind, run.name) for run in answer.values()}
    others = [run for key, run in other.items() if key not in taken and not _held(run, answer.values())]
    last = [*(answer[i] for i in sorted(answer)), *others]
    order = [*ANALYSES, *sorted({run.kind for run in last} - set(ANALYSES))]
    return sorted((run for run in last if run.kind != "report"), key=lambda run: order.index(run.kind))


def _held(analysis: Run, answers: Iterable[Run]) -> bool:
    """Whether it is of a pair that an answer has among others, with the same settings."""
    return analysis.kind == "pair" and any(
        run.kind == "pairs" and analysis.links <= run.links and analysis.params == run.params for run in answers
    )


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
    missing = [usage(kind, sweep) for kind in ANALYSES if kind != "report" and not _has(analyses, kind)]
    more = "; ".join(f"<code>gahb-analyze {html.escape(command)}</code>" for command in missing)
    reasons = "".join(f"<li>{html.escape(name)}: {html.escape(reason)}</li>" for name, reason in refused.items())
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(sweep)}</title><style>{STYLE}</style>",
        f"<h1>{html.escape(sweep)}</h1>",
        f"<p>{len(trials)} finished trials. PSNR in dB, averaged over noise levels σ in [0, 1].</p>",
        *(f"<p>{html.escape(line)}</p>" for line in unfinished),
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
    words = {"sweep": sweep, "sweeps": f"{sweep} OTHER", "runs": "RUN"}
    return " ".join([kind, *(words.get(name, name.upper()) for name in needed)])


def _has(analyses: Sequence[tuple[Run, Path]], kind: str) -> bool:
    return any(run.kind == kind for run, _ in analyses)


def _section(run: Run, folder: Path) -> str:
    about = described(run.kind)
    pictures = "".join(_picture(file.stem, content) for file, content in _contents(folder, "*.png"))
    contents = [(file, content) for file, content in _contents(folder, "*.csv") if file.stem != "trials"]  # at the top
    tables = [table for file, content in contents if len(table := _read_table(file, content)) <= LONGEST]
    title, reading, paper = map(html.escape, (about.title, about.reading, about.paper))
    found = f"<p class=paper>In the paper: {paper}</p>" if paper else ""
    settings = html.escape(", ".join(f"{key} = {value}" for key, value in run.params.items()))
    heading = f"<h2>{title}</h2><p>{html.escape(run.name)}{f' ({settings})' if settings else ''}. {reading}</p>"
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
