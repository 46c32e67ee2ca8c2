"""All pairs of a sweep: the move from memorisation to one common function as N grows (Figures 2, 10, 12).

A pair is two finished trials that differ in nothing but the subset, and a curve the pairs that differ in nothing but N
and seed. N× is the N at which a curve's pair similarity overtakes the similarity to the closest training image,

    d(N) = mean cosine of pairs - mean cosine to the closest training image    (over samples and seeds)

passes 0 for good: d is interpolated linearly in log N between the last N where it is negative and the next. There is
one for raw cosines, as in the paper, and one for those of images whose means are removed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gahb.cli import say
from gahb.denoising.sampler import Sampler
from gahb.errors import UserError
from gahb.execution import answers
from gahb.execution.analysis import AnalysisContext, AnalysisResult, rows_of
from gahb.figures import style
from gahb.grids import curve_names, differing, pair_name
from gahb.sentences import three_digits
from gahb.tracking import lookup
from gahb.tracking.evaluations import trial_metrics
from gahb.tracking.run import METRICS, Run

from .models import load
from .pair import COLUMNS, ROW_LABELS, Pair, check_pair, compare, draw_histograms, say_diverged, stored
from .underway import trials_of

SHOWN = 3
"""Samples of each pair in the picture."""

PRINTED = (
    "pair",
    "n_train",
    "train_psnr",
    "test_psnr",
    "psnr_gap",
    "swap_gap",
    "cosine",
    "excess",
    "closest_train",
    "closest_other",
    "diverged",
)
"""The columns that are printed, the last if any sample diverged; CSV and JSON have them all."""

NO_PAIR = "no two finished trials of this sweep differ in their subset alone"


def run(context: AnalysisContext, *, sweep: str, samples: int, seed: int, sampler: Sampler) -> AnalysisResult:
    """The result of `gahb-analyze pairs`; each pair is a Ray task.

    Args:
        sweep: a sweep in the record.
        samples: of each model, at least 2.
        seed: of the sampling noise.
        sampler: the constants of the sampling.
    """
    trials = trials_of(context, sweep)
    found = lookup.pairs(trials.finished)
    if not found:
        raise UserError("; ".join([NO_PAIR, *trials.lines]))
    pairs = _compared(context, found, samples, seed, sampler)
    for pair in pairs:
        say_diverged(pair)
    table = pairs_table(pairs, {run.run_id: trial_metrics(context.record, run) for runs in found for run in runs})
    crossed = overtakings(table)
    per_sample = pd.concat([pair.table.assign(pair=name) for pair, name in zip(pairs, table["pair"], strict=True)])
    rows, crossings = rows_of(table), rows_of(crossed)
    return AnalysisResult(
        name=f"pairs of {sweep}",
        sweep=sweep,
        runs=[run for runs in found for run in runs],
        settings={"samples": samples, "seed": seed, **asdict(sampler)},
        metrics={
            f"{key}_{i}": row[key]
            for i, row in enumerate(crossings)
            for key in ("n_overtake", "n_overtake_centered")
            if row[key]
        },
        by_n={run_id: row for pair in pairs for run_id, row in pair.by_n().items()},
        tables={"pairs": table, "samples": per_sample, "n_overtake": crossed},
        pictures={"pairs": figure(pairs, table, crossed)},
        data={"pairs": rows, "n_overtake": crossings, "unfinished": trials.rows},
        shown=[_printed(rows)],
        lines=[*in_words(crossed), *trials.lines, *trials.missing_pairs],
    )


def _printed(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    columns = PRINTED if any(row["diverged"] for row in rows) else PRINTED[:-1]
    return [{key: row[key] for key in columns} for row in rows]


def _compared(
    context: AnalysisContext, found: Sequence[tuple[Run, Run]], samples: int, seed: int, sampler: Sampler
) -> list[Pair]:
    """The comparisons of pairs: those that the record has of `gahb-analyze pair`, the others computed."""
    settings = {"samples": samples, "seed": seed, **asdict(sampler)}
    asked = context.record.runs("pair")
    pairs = list[Pair | None]()
    for a, b in found:
        analysis = lookup.answer(asked, (a, b), settings)
        pairs.append(stored(context, analysis, a, b) if analysis else None)
    rest = [both for both, pair in zip(found, pairs, strict=True) if not pair]
    if len(rest) < len(found):
        say(f"{len(found) - len(rest)} of {len(found)} pairs are in the record already")
    if not rest:
        return [pair for pair in pairs if pair]
    keys = differing(a.trial for a, _ in found)
    names = [f"pair {pair_name(a.trial, keys)}" for a, _ in rest]
    work = [(a, b, samples, seed, sampler) for a, b in rest]
    computed = iter(context.map_on_cluster(_compare, work, names, lambda pair: f": {answers.in_words(pair.summary())}"))
    return [pair or next(computed) for pair in pairs]


def _compare(context: AnalysisContext, work: tuple[Run, Run, int, int, Sampler]) -> Pair:
    run_a, run_b, samples, seed, sampler = work
    a, b = load(context, run_a), load(context, run_b)
    check_pair(a, b)
    return compare(a, b, samples, seed, context.device, sampler)


def find_pairs(runs: Sequence[Run]) -> list[tuple[Run, Run]]:
    """(A, B) of all trials that have a counterpart, ordered by resolution and N.

    Raises:
        UserError: no trial has one.
    """
    found = lookup.pairs(runs)
    if not found:
        raise UserError(NO_PAIR)
    return found


def pairs_table(pairs: Sequence[Pair], metrics: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """A row a pair: its name and curve, PSNR in dB averaged over noise levels and over both models, cosines averaged
    over samples.

    Args:
        metrics: run id → METRICS.
    """
    trials = [pair.a.trial for pair in pairs]
    keys = differing(trials)
    names = [pair_name(trial, keys) for trial in trials]
    rows = [
        {"pair": name, "curve": curve, **_row(pair, metrics)}
        for pair, name, curve in zip(pairs, names, curve_names(trials), strict=True)
    ]
    return pd.DataFrame(rows)


def _row(pair: Pair, metrics: Mapping[str, Mapping[str, float]]) -> dict[str, float | int]:
    summary = pair.summary()
    a, b = metrics[pair.a.run_id], metrics[pair.b.run_id]
    return {
        "resolution": pair.a.flat["resolution"],
        "n_train": pair.a.flat["n_train"],
        **{key: (a[key] + b[key]) / 2 for key in METRICS},
        "swap_gap": pair.swap_gap,
        "swap_gap_db": pair.swap_gap_db,
        **{column: summary[column]["mean"] for column in COLUMNS if not column.startswith("mismatched")},
        "diverged": summary["diverged"],
    }


def overtakings(table: pd.DataFrame) -> pd.DataFrame:
    """A row a curve: curve, resolution, `n_overtake` of raw cosines and `n_overtake_centered`, each with its `bound`
    where it lies outside the N of the table and is NaN: "< least N" or "> largest N".

    Args:
        table: as `pairs_table` makes it.
    """
    rows = []
    for (curve, resolution), group in table.groupby(["curve", "resolution"], sort=False):
        means = group.groupby("n_train").mean(numeric_only=True)
        row: dict[str, Any] = {"curve": curve, "resolution": resolution}
        for ending in ("", "_centered"):
            ahead = means[f"cosine{ending}"] - means[f"closest_train{ending}"]
            row[f"n_overtake{ending}"], row[f"bound{ending}"] = overtaking(list(means.index), ahead.tolist())
        rows.append(row)
    return pd.DataFrame(rows)


def in_words(crossed: pd.DataFrame) -> list[str]:
    """N× of each curve, from what `overtakings` makes."""
    lines = []
    for row in rows_of(crossed):
        raw, centred = (
            row[f"bound{ending}"] or f"= {three_digits(row[f'n_overtake{ending}'])}" for ending in ("", "_centered")
        )
        lines.append(
            f"{row['curve']}: two denoisers' samples become more alike than a sample and its closest training image at "
            f"N× {raw} (means removed: N× {centred})"
        )
    return lines


def overtaking(n_train: Sequence[int], ahead: Sequence[float]) -> tuple[float, str | None]:
    """The N, ascending, at which what is ahead passes 0 for good, and None; or NaN and on which side of all N it is."""
    behind = [i for i, value in enumerate(ahead) if not value >= 0]
    if not behind:
        return math.nan, f"< {n_train[0]}"
    i = behind[-1]
    if i == len(ahead) - 1:
        return math.nan, f"> {n_train[-1]}"
    share = ahead[i] / (ahead[i] - ahead[i + 1])
    return n_train[i] * (n_train[i + 1] / n_train[i]) ** share, None


def figure(pairs: Sequence[Pair], table: pd.DataFrame, crossed: pd.DataFrame) -> Figure:
    """A column a pair: closest training images and samples above, histograms below; then similarity against N, raw and
    with means removed, with N× where it is known."""
    columns = len(pairs)
    picture = Figure(figsize=(1.2 + 1.9 * max(columns, 4), 8), layout="constrained")
    grid = picture.add_gridspec(3, columns, height_ratios=(2.6, 1.1, 2.6))
    for column, pair in enumerate(pairs):
        top, histogram = picture.add_subplot(grid[0, column]), picture.add_subplot(grid[1, column])
        if len(pair.shown[0]):
            style.show_rows(top, [images[:SHOWN] for images in pair.shown], ROW_LABELS)
        if column:
            top.set_yticks([])
        top.set_title(title(pair.a), fontsize=9)
        draw_histograms(histogram, pair.table)
        histogram.set_yticks([])
        histogram.set_xlabel("cosine", fontsize=8)
        histogram.tick_params(labelsize=7)
    below = picture.add_subfigure(grid[2, :])
    below.legend(*histogram.get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False, fontsize=8)
    for axes, ending in zip(below.subplots(1, 2, sharex=True), ("", "_centered"), strict=True):
        _draw_curves(axes, table, crossed, ending)
    return picture


def title(run: Run) -> str:
    """N, with the resolution before it."""
    side, n_train = (run.flat[key] for key in ("resolution", "n_train"))
    return f"{side}×{side}, N = {n_train:,}"


def _draw_curves(axes: Axes, table: pd.DataFrame, crossed: pd.DataFrame, ending: str) -> None:
    """Similarities against N of each curve, of the columns with that ending."""
    lines = {
        f"cosine{ending}": ("o-", style.COLOURS[0], "two denoisers, same noise"),
        f"closest_train{ending}": ("^-", style.COLOURS[1], "sample and closest training image"),
        f"closest_other{ending}": ("v:", style.COLOURS[4], "sample and closest image of the other set"),
    }
    if ending:
        lines["excess"] = ("s--", style.COLOURS[2], "two denoisers: excess over other noise")
    for i, row in crossed.iterrows():
        means = table[table["curve"] == row["curve"]].groupby("n_train").mean(numeric_only=True)
        alpha = 1 - 0.6 * int(str(i)) / len(crossed)
        for column, (line, colour, label) in lines.items():
            of_curve = f"{label}, {style.plain(row['curve'])}" if len(crossed) > 1 else label
            axes.plot(means.index, means[column], line, color=colour, alpha=alpha, label=of_curve)
        if math.isfinite(n := row[f"n_overtake{ending}"]):
            of_curve = f", {style.plain(row['curve'])}" if len(crossed) > 1 else ""
            axes.axvline(
                n, color="0.4", linestyle="--", linewidth=1, alpha=alpha, label=f"N× = {three_digits(n)}{of_curve}"
            )
    style.against_n(axes, table["n_train"])
    axes.set_ylabel("cosine similarity" + ("\n(means removed)" if ending else ""))
    axes.legend(frameon=False, fontsize=7)
    axes.grid(alpha=0.3)
