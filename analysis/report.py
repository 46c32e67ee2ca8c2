"""One page that says what a sweep trained and what its analyses found, each beside what the paper found.

What applies to the sweep and has not been asked yet of its finished trials is computed first (`questions`). The page
holds its pictures inside, so it can be sent as one file; as an artifact it opens in the MLflow UI. It shows the newest
analysis of each kind (and, where an analysis is of single trials, the newest of each) that the record has.
"""

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd

from gahb.cli import say
from gahb.errors import UserError
from gahb.execution.analysis import AnalysisContext, AnalysisResult, log_result
from gahb.tracking.record import Run
from gahb.trial import Trial

from . import memorization, pairs, transfer
from .scaling import trials_table


@dataclass(frozen=True)
class Kind:
    """How to read an analysis's pictures, what the paper saw there, and the command that makes it."""

    title: str
    reading: str
    paper: str
    command: str


KINDS = {
    "curves": Kind(
        "Output PSNR against input PSNR",
        "Each curve is one training-set size. Where train lies above test, the network remembers its images; the "
        "dotted identity is a denoiser that does nothing.",
        "Figures 1, 9, 11: at N = 1 and 10 train has unit slope and test is poor at every noise level; at N = 10⁵ both "
        "coincide. Figure 4: slopes 0.46, 0.61, 0.75, 0.83 for α = 1, 2, 3, 5, where α/(α+1) is optimal.",
        "curves {sweep}",
    ),
    "pairs": Kind(
        "Two models, one noise",
        "Above, samples of the models trained on A and on B from the same noise, each beside the closest image of its "
        "training set; below, the cosine of the two samples (blue) and of a sample and its closest image (orange). "
        "Excess is what the first has beyond samples from different noise.",
        "Figures 2, 10, 12: as N grows the blue histogram moves to 1 and the orange one away from it; they cross "
        "between N = 10³ and 10⁴.",
        "pairs {sweep}",
    ),
    "scaling": Kind(
        "PSNR gap against N",
        "Train minus held-out PSNR averaged over noise levels, a curve for each resolution; bars span subsets and "
        "seeds, dotted lines mark where the gap falls below the threshold.",
        "Figure 15: the gap falls with N at every resolution; larger images need more N, but the step from 80×80 to "
        "160×160 costs much less than that from 40×40 to 80×80.",
        "scaling {sweep}",
    ),
    "memorization": Kind(
        "Memorised samples",
        "The fraction of samples at most a third as far from their closest training image as from the next, at the end "
        "of training against N, and against images seen.",
        "Figure 2 shows copies up to N = 100, distorted copies at N = 1000 and none at 10⁵.",
        "memorization {sweep}",
    ),
    "basis": Kind(
        "Shrinkage factors and adaptive basis",
        "Eigenvalues λ and eigenvectors of the denoiser's Jacobian at one noisy image, and the image's coefficients in "
        "that basis.",
        "Figure 3: the largest λ lie a little above 1 and decay slowly, vectors oscillate along contours and in smooth "
        "regions. Figure 5 (disks): about five λ near 1, then a fall to 0.67, 0.55, 0.39.",
        "basis RUN",
    ),
    "trajectories": Kind(
        "Where sampling paths part",
        "The denoised image on the way from noise to sample, in both models.",
        "Figure 8: paths that end in different images part near their middle.",
        "trajectories RUN1 RUN2",
    ),
    "theory": Kind(
        "Beside analytic denoisers",
        "The trained denoiser among those that need no training.",
        "Section 2.1 and eq. 5: the gap to the optimum, integrated over noise levels, bounds the error of the density.",
        "theory RUN",
    ),
    "transfer": Kind(
        "Models on other kinds of image",
        "Each row is a model, each column the held-out images of one kind; numbers are PSNR and what is lost "
        "against the kind's own model.",
        "The paper poses this as a question: how far the inductive bias alone carries to images never seen.",
        "transfer {sweep} OTHER",
    ),
    "pair": Kind(
        "A single pair",
        "As above, for two chosen models.",
        "Figure 14: at N = 20,000 on 32×32 rooms, BF-CNN, the cosine of pairs is close to 1.",
        "pair RUN1 RUN2",
    ),
}
"""The analyses that a report shows, in its order."""

LONGEST = 60
"""Rows of the longest table that a page shows; longer ones are artifacts of their analysis."""

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
img { max-width: 100%; } .table { overflow-x: auto; }
table { border-collapse: collapse; font-size: .8rem; font-variant-numeric: tabular-nums; }
td, th { padding: .15rem .6rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
.paper { color: #555; border-left: 3px solid #0072b2; padding-left: .8rem; } code { background: #f3f3f3; }
"""


SAMPLES, SEED, SIGMA, THRESHOLD = 64, 0, 0.15, 1.0
"""What the commands take by default."""


@dataclass(frozen=True)
class Question:
    """An analysis to be run: its kind, the arguments of its `run`, and the runs that it will be computed from."""

    kind: str
    arguments: dict[str, Any]
    runs: Sequence[Run]


def run(context: AnalysisContext, *, sweep: str) -> AnalysisResult:
    """The result of `gahb-analyze report` for a sweep in the record."""
    runs = context.record.finished_trials(sweep)
    known = {(run.tags["gahb.kind"], _linked(run)) for run in context.record.analyses(sweep)}
    refused: dict[str, str] = {}
    for question in questions(sweep, runs):
        if (question.kind, frozenset(run.run_id for run in question.runs)) in known:
            continue
        try:
            result = import_module(f".{question.kind}", __package__).run(context, **question.arguments)
            log_result(context, result, sweep)
            say(result.name)
        except UserError as error:
            refused[f"{question.kind} of {', '.join(run.name for run in question.runs[:2])}"] = str(error)
    shown = [
        (analysis, context.record.artifacts(analysis.run_id)) for analysis in newest(context.record.analyses(sweep))
    ]
    names = [analysis.name for analysis, _ in shown]
    return AnalysisResult(
        kind="report",
        name=f"report of {sweep}",
        sweep=sweep,
        runs=runs,
        texts={"report.html": page(sweep, trials_table(runs), shown, refused)},
        data={"shown": names, "refused": refused},
        lines=[*names, *(f"not {name}: {reason}" for name, reason in refused.items())],
    )


def questions(sweep: str, runs: Sequence[Run]) -> list[Question]:
    """What there is to ask of a sweep's finished trials. Bases are of one trial a curve, that of the largest N; theory
    of one trial a data set and resolution; trajectories of the pairs of the least and of the largest N."""
    asked = [Question("curves", {"sweep": sweep}, runs)]
    found = _or_none(pairs.find_pairs, runs)
    sampling = {"samples": SAMPLES, "seed": SEED}
    if found:
        both = [run for pair in found for run in pair]
        asked.append(Question("pairs", {"sweep": sweep, **sampling}, both))
    if len({run.params["n_train"] for run in runs}) > 1:
        asked.append(Question("scaling", {"sweep": sweep, "threshold": THRESHOLD}, runs))
        several = _or_none(memorization.with_two_images, runs)
        asked.append(Question("memorization", {"sweep": sweep, **sampling}, several))
    for run in _largest(runs, ignored=("n_train", "subset", "seed")):
        at = {"run": run.run_id, "image": 0, "sigma": SIGMA, "top": None}
        asked.append(Question("basis", at, [run]))
    for a, b in found[:1] + found[1:][-1:]:
        ends = {"run1": a.run_id, "run2": b.run_id, "sample": 0, "seed": SEED, "force": False}
        asked.append(Question("trajectories", ends, [a, b]))
    of_images = {key for run in runs for key in Trial.of(_flat(run)).dataset.flat()}
    other_keys = [key for run in runs for key in _flat(run) if key not in of_images]
    asked += [Question("theory", {"run": run.run_id}, [run]) for run in _largest(runs, ignored=other_keys)]
    if groups := _or_none(transfer.choose, runs):
        asked.append(Question("transfer", {"sweeps": [sweep]}, [run for group in groups for run in group]))
    return asked


def _largest(runs: Sequence[Run], ignored: Sequence[str]) -> list[Run]:
    """Of the trials that differ in nothing but the ignored keys, the first of the largest N."""
    chosen: dict[str, Run] = {}
    for run in runs:
        rest = repr({key: value for key, value in _flat(run).items() if key not in ignored})
        if int(run.params["n_train"]) > int(chosen.setdefault(rest, run).params["n_train"]):
            chosen[rest] = run
    return list(chosen.values())


def _flat(run: Run) -> dict[str, Any]:
    flat: dict[str, Any] = run.trial
    return flat


def _or_none(choose: Any, runs: Sequence[Run]) -> Any:
    """What an analysis chooses among runs, nothing if it finds none that will do."""
    try:
        return choose(runs)
    except UserError:
        return []


def _linked(analysis: Run) -> frozenset[str]:
    return frozenset(run_id for tag, run_id in analysis.tags.items() if tag.startswith("gahb.of."))


def newest(analyses: Sequence[Run]) -> list[Run]:
    """Of analyses in the order of time, the last of each kind and name, in the order of KINDS."""
    last = {(run.tags["gahb.kind"], run.name): run for run in analyses if run.tags["gahb.kind"] in KINDS}
    order = list(KINDS)
    return sorted(last.values(), key=lambda run: order.index(run.tags["gahb.kind"]))


def page(sweep: str, trials: pd.DataFrame, analyses: Sequence[tuple[Run, Path]], refused: Mapping[str, str]) -> str:
    """The page as HTML.

    Args:
        trials: a row a finished trial, as `scaling.trials_table` makes it.
        analyses: the analyses to show and the folders with their artifacts.
        refused: what could not be computed, and why.
    """
    missing = [kind.command.format(sweep=sweep) for name, kind in KINDS.items() if not _has(analyses, name)]
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


def _has(analyses: Sequence[tuple[Run, Path]], kind: str) -> bool:
    return any(run.tags["gahb.kind"] == kind for run, _ in analyses)


def _section(run: Run, folder: Path) -> str:
    kind = KINDS[run.tags["gahb.kind"]]
    pictures = "".join(map(_picture, sorted(folder.glob("*.png"))))
    files = [file for file in sorted(folder.glob("*.csv")) if file.stem != "trials"]  # they head the page
    tables = [table for file in files if len(table := pd.read_csv(file)) <= LONGEST]
    return (
        f"<h2>{kind.title}</h2><p>{html.escape(run.name)}. {kind.reading}</p>{pictures}"
        f"<p class=paper>In the paper: {kind.paper}</p>{''.join(map(_table, tables))}"
    )


def _picture(file: Path) -> str:
    content = base64.b64encode(file.read_bytes()).decode()
    return f'<img alt="{html.escape(file.stem)}" src="data:image/png;base64,{content}">'


def _table(table: pd.DataFrame) -> str:
    return (
        f"<div class=table>{table.to_html(index=False, border=0, float_format=lambda x: f'{x:.3g}', na_rep='–')}</div>"
    )
