"""All pairs of a sweep: the move from memorisation to one common function as N grows (Figures 2, 10, 12).

A pair is two finished trials that differ in nothing but the subset.
"""

import json
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gahb.errors import UserError
from gahb.execution.analysis import AnalysisContext, AnalysisResult, rows_of
from gahb.figures import style
from gahb.grids import differing, pair_name
from gahb.tracking import lookup
from gahb.tracking.run import Run

from .models import load
from .pair import ROW_LABELS, Pair, check_pair, compare, draw_histograms, say_diverged

SHOWN = 3
"""Samples of each pair in the picture."""


def run(context: AnalysisContext, *, sweep: str, samples: int, seed: int) -> AnalysisResult:
    """The result of `gahb-analyze pairs`; each pair is a Ray task.

    Args:
        sweep: a sweep in the record.
        samples: of each model, at least 2.
        seed: of the sampling noise.
    """
    found = find_pairs(lookup.finished_trials(context.record, sweep))
    names = [f"{a.name} and {b.name}" for a, b in found]
    pairs = context.map_on_cluster(_compare, [(a, b, samples, seed) for a, b in found], names)
    for pair in pairs:
        say_diverged(pair)
    table = pairs_table(pairs)
    per_sample = pd.concat([pair.table.assign(pair=name) for pair, name in zip(pairs, table["pair"], strict=True)])
    rows = rows_of(table)
    return AnalysisResult(
        name=f"pairs of {sweep}",
        sweep=sweep,
        runs=[run for runs in found for run in runs],
        settings={"samples": samples, "seed": seed},
        tables={"pairs": table, "samples": per_sample},
        pictures={"pairs": figure(pairs, table)},
        data={"pairs": rows},
        shown=[rows],
    )


def _compare(context: AnalysisContext, work: tuple[Run, Run, int, int]) -> Pair:
    run_a, run_b, samples, seed = work
    a, b = load(context, run_a), load(context, run_b)
    check_pair(a, b)
    return compare(a, b, samples, seed, context.device)


def find_pairs(runs: Sequence[Run]) -> list[tuple[Run, Run]]:
    """(A, B) of all trials that have a counterpart, ordered by resolution and N.

    Raises:
        UserError: no trial has one.
    """
    halves: dict[str, dict[str, Run]] = {}
    for run in runs:
        flat = run.flat
        subset = flat.pop("subset")
        halves.setdefault(json.dumps(flat, sort_keys=True), {})[subset] = run
    pairs = [(half["A"], half["B"]) for half in halves.values() if len(half) == 2]
    if not pairs:
        raise UserError("no two finished trials of this sweep differ in their subset alone")
    return sorted(pairs, key=lambda pair: (pair[0].flat["resolution"], pair[0].flat["n_train"]))


def pairs_table(pairs: Sequence[Pair]) -> pd.DataFrame:
    """A row a pair: its name, PSNR in dB averaged over σ and over both models, cosines averaged over samples."""
    trials = [pair.a.trial for pair in pairs]
    keys = differing(trials)
    return pd.DataFrame([_row(pair, pair_name(trial, keys)) for pair, trial in zip(pairs, trials, strict=True)])


def _row(pair: Pair, name: str) -> dict[str, float | int | str]:
    summary = pair.summary()
    a, b = pair.a.metrics, pair.b.metrics
    return {
        "pair": name,
        "resolution": pair.a.flat["resolution"],
        "n_train": pair.a.flat["n_train"],
        **{key: (a[key] + b[key]) / 2 for key in ("train_psnr", "test_psnr", "psnr_gap")},
        "swap_gap": pair.swap_gap,
        "cosine": summary["cosine"]["mean"],
        "cosine_centered": summary["cosine_centered"]["mean"],
        "excess": summary["excess"]["mean"],
        "closest_train": summary["closest_train"]["mean"],
        "closest_other": summary["closest_other"]["mean"],
        "diverged": summary["diverged"],
    }


def figure(pairs: Sequence[Pair], table: pd.DataFrame) -> Figure:
    """A column a pair: closest training images and samples above, histograms below; then similarity against N."""
    columns = len(pairs)
    picture = Figure(figsize=(1.2 + 1.9 * columns, 7.5), layout="constrained")
    grid = picture.add_gridspec(3, columns, height_ratios=(2.6, 1.3, 2.2))
    for column, pair in enumerate(pairs):
        top, histogram = picture.add_subplot(grid[0, column]), picture.add_subplot(grid[1, column])
        if len(pair.shown[0]):
            style.show_rows(top, [images[:SHOWN] for images in pair.shown], ROW_LABELS)
        if column:
            top.set_yticks([])
        top.set_title(title(pair), fontsize=9)
        draw_histograms(histogram, pair.table)
        histogram.set_yticks([])
        histogram.set_xlabel("cosine", fontsize=8)
        histogram.tick_params(labelsize=7)
    _draw_curves(picture.add_subplot(grid[2, :]), table)
    return picture


def title(pair: Pair) -> str:
    """N, with the resolution before it."""
    side, n_train = (pair.a.flat[key] for key in ("resolution", "n_train"))
    return f"{side}×{side}, N = {n_train:,}"


def _draw_curves(axes: Axes, table: pd.DataFrame) -> None:
    lines = {"cosine": "o-", "excess": "s--", "closest_train": "^-"}
    labels = {
        "cosine": "two denoisers, same noise",
        "excess": "excess over other noise (means removed)",
        "closest_train": "sample and closest training image",
    }
    colours = {"cosine": style.COLOURS[0], "excess": style.COLOURS[2], "closest_train": style.COLOURS[1]}
    for i, (resolution, group) in enumerate(table.groupby("resolution")):
        means = group.groupby("n_train").mean(numeric_only=True)
        for column, line in lines.items():
            suffix = f", {resolution}×{resolution}" if table["resolution"].nunique() > 1 else ""
            alpha = 1 - 0.6 * i / table["resolution"].nunique()
            axes.plot(
                means.index, means[column], line, color=colours[column], alpha=alpha, label=labels[column] + suffix
            )
    axes.set_xscale("log")
    axes.set_xlabel("training images N")
    axes.set_ylabel("cosine similarity")
    axes.legend(frameon=False, fontsize=8)
    axes.grid(alpha=0.3)
