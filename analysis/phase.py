"""The phase diagram of a sweep: where the PSNR gap closes over N × images seen (`plane`), what pairs of models do there
(`courses`), the law of it (`law`), its gap curves as one (`collapse`), and what that predicts (`predictions`).

A trial's record has its PSNR at every evaluation, so a sweep over N gives the whole plane.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from gahb.denoising.levels import Gap
from gahb.denoising.sampler import Sampler
from gahb.errors import UserError
from gahb.execution.analysis import AnalysisContext, AnalysisResult, rows_of
from gahb.tracking import lookup
from gahb.typed import command_line

from . import law, predictions
from .collapse import Collapse, collapse
from .courses import APART, exponents_table, sampled, times_table
from .gaps import gaps_of, within
from .phase_figure import figure
from .plane import cells_table, read, stars_table, those_that_count

NAMED = 3
"""Trials that a line names."""


def run(
    context: AnalysisContext,
    *,
    sweep: str,
    threshold: float,
    gap: Gap,
    window: tuple[float, float],
    predict: Sequence[float],
    samples: int,
    seed: int,
    sampler: Sampler,
) -> AnalysisResult:
    """The result of `gahb-analyze phase`; each pair is a Ray task, if samples are drawn.

    Args:
        sweep: a sweep in the record, which may be under way.
        threshold: the PSNR gap in dB that counts as closed.
        gap: which of the two gaps.
        window: the gaps in dB, from and to, of the cells that law and collapse are fitted to.
        predict: images seen for which N* is predicted.
        samples: of each model at an evaluation, at least 2; 0 for none.
        seed: of the sampling noise.
        sampler: the constants of the sampling.

    Raises:
        UserError: nothing has been evaluated yet; a length that is to be predicted has been reached; or an option out
            of range.
    """
    if samples == 1:
        raise UserError("--samples 1: must be 0 or at least 2")
    if not 0 < window[0] < window[1] < math.inf:
        raise UserError(f"--window {window[0]:g} {window[1]:g}: must be two gaps in dB, the lower first and above 0")
    runs = lookup.sweep_trials(context.record, sweep)
    trials, evaluations = read(context.record, runs)
    if evaluations.empty:
        raise UserError(
            f"no trial of sweep {sweep!r} has been evaluated yet; see: {command_line('gahb-sweep', 'status')}"
        )
    longest = {str(curve): int(seen) for curve, seen in evaluations.groupby("curve")["images_seen"].max().items()}
    predictions.check_lengths(longest, predict)

    counted = those_that_count(evaluations)
    course = counted.merge(sampled(context, runs, counted, samples, seed, sampler), "left", ["run_id", "images_seen"])
    cells, stars = cells_table(course), stars_table(trials, counted, threshold, gap)
    times = times_table(trials, course)
    exponents = exponents_table(times)

    gaps = within(gaps_of(counted, gap.metric), window)
    collapses = {str(curve): found for curve, part in gaps.groupby("curve", sort=False) if (found := collapse(part))}
    of_curve, laws, parameters = _laws(trials, gaps, stars, threshold)
    ids = dict(zip(trials["curve"], trials["curve_id"], strict=True))
    made = predictions.predict_stars(of_curve, stars, longest, predict, ids).assign(
        threshold_db=threshold, gap=gap.value
    )
    known = predictions.outcomes(
        predictions.earlier(context.record, sweep), ids, lambda t, g: stars_table(trials, counted, t, Gap(g))
    )
    everything = pd.DataFrame([*rows_of(known), *rows_of(made)], columns=known.columns)

    last = stars[stars["n_star"].notna()].groupby("curve", sort=False)["n_star"].last()
    tables = {
        "cells": cells,
        "n_star": stars,
        "times": times,
        "exponents": exponents,
        "collapse": pd.DataFrame([{"curve": curve, **asdict(found)} for curve, found in collapses.items()]),
        "laws": pd.DataFrame(laws),
        "parameters": pd.DataFrame(parameters),
        "predictions": made,
        "outcomes": known,
        "evaluations": counted.drop(columns=["curve_id", "condition"]),
    }
    return AnalysisResult(
        name=f"phase diagram of {sweep}",
        sweep=sweep,
        runs=[run for run in runs if run.run_id in set(evaluations["run_id"])],
        settings={
            "threshold": threshold,
            "gap": gap.value,
            "window": window,
            "samples": samples,
            "seed": seed,
            **asdict(sampler),
            **({"predict": list(predict)} if predict else {}),
        },
        metrics={f"n_star_{i}": float(n_star) for i, n_star in enumerate(last)},
        tables={stem: table for stem, table in tables.items() if len(table)},
        pictures={"phase": figure(course, cells, stars, times, exponents, collapses, everything, threshold, gap)},
        data={
            "cells": rows_of(cells),
            "n_star": rows_of(stars),
            "times": rows_of(times),
            "exponents": rows_of(exponents),
            "collapse": {curve: asdict(found) for curve, found in collapses.items()},
            "law": {
                "window": window,
                "threshold_db": threshold,
                "gap": gap.value,
                "laws": rows_of(tables["laws"]),
                "parameters": rows_of(tables["parameters"]),
            },
            "predictions": rows_of(everything),
        },
        shown=[
            _in_short(stars.drop(columns=["resolution", "parameters", "pixels"])),
            *(_in_short(tables[stem]) for stem in ("exponents", "laws", "parameters")),
        ],
        lines=_lines(trials, stars, times, collapses, everything, samples, gap),
    )


def _laws(
    trials: pd.DataFrame, gaps: pd.DataFrame, stars: pd.DataFrame, threshold: float
) -> tuple[dict[str, Mapping[str, law.Fitted]], list[dict[str, Any]], list[dict[str, Any]]]:
    """Curve → the laws that hold for it; and the rows of `law.laws_table` and `law.parameters_table`, each with the
    condition that it is `of`."""
    of_curve, laws, parameters = dict[str, Mapping[str, law.Fitted]](), list[dict[str, Any]](), list[dict[str, Any]]()
    for condition, group in trials.groupby("condition", sort=False):
        curves = list(group["curve"].unique())
        part = gaps[gaps.index.get_level_values("curve").isin(curves)]
        fits = law.fit_laws(part, threshold)
        of_curve |= dict.fromkeys(curves, fits)
        measured = stars[stars["curve"].isin(curves)]
        laws += [{"of": condition, **row} for row in law.laws_table(fits, part, measured, threshold)]
        parameters += [{"of": condition, **row} for row in law.parameters_table(fits, part)]
    return of_curve, laws, parameters


def _lines(
    trials: pd.DataFrame,
    stars: pd.DataFrame,
    times: pd.DataFrame,
    collapses: Mapping[str, Collapse],
    predicted: pd.DataFrame,
    samples: int,
    gap: Gap,
) -> list[str]:
    lines = [*_about_trials(trials, stars)]
    if samples:
        lines.append(f"samples were drawn at evaluations at least a factor {APART:g} apart, of finished pairs of N ≥ 2")
    for curve, of_curve in stars.groupby("curve", sort=False):
        star = of_curve.iloc[-1]
        lines.append(
            f"{curve}: after {star['images_seen']:,} images the gap averaged over {gap.average} closes at N* "
            f"{_where(star)}"
        )
    for curve, group in times[times["bound"].notna()].groupby("curve", sort=False):
        sizes = ", ".join(f"{n:,}" for n in group["n_train"].unique())
        lines.append(
            f"{curve}: {len(group)} trials, of N = {sizes}, never draw more than half of their samples from memory: "
            "their τ_mem is a bound, and the exponent is that of the other N"
        )
    for curve, found in collapses.items():
        q = f"q {found.bound}" if found.bound else f"q = {found.q:.2f}{_range(found.low, found.high, '.2f')}"
        lines.append(
            f"{curve}: the gap as a function of images/N^q: {q}, which leaves {found.spread:.2f} of log gap, and q = 1 "
            f"{found.spread_at_one:.2f}"
        )
    return lines + [_about_prediction(row) for row in rows_of(predicted[predicted["law"] == "saturating"])]


def _about_trials(trials: pd.DataFrame, stars: pd.DataFrame) -> list[str]:
    """What is not there, and what is not an end."""
    lines = []
    if len(unfinished := trials[trials["state"] != "finished"]):
        more = ", …" if len(unfinished) > NAMED else ""
        names = ", ".join(f"{name} ({state})" for name, state in unfinished[["name", "state"]].to_numpy()[:NAMED])
        lines.append(f"{len(unfinished)} of {len(trials)} trials are not finished: {names}{more}")
    for curve, group in trials[trials["annealed"]].groupby("curve", sort=False):
        way = "an evaluation on the way is not the end of a training of that length"
        end = ", so only the ends count" if group["ends_alone"].any() else ""
        lines.append(f"{curve}: the learning rate falls to the end, and {way}{end}")
    for curve, group in stars[stars["missing"] > 0].groupby("curve", sort=False):
        lengths = ", ".join(f"{n:,} ({missing})" for n, missing in group[["images_seen", "missing"]].to_numpy())
        lines.append(f"{curve}: N* is of the trials that were evaluated; so many are missing after {lengths} images")
    return lines


def _where(star: pd.Series) -> str:
    if isinstance(star["bound"], str):
        return star["bound"]
    between = _range(star["low"], star["high"], ".0f") if star["replicates"] > 1 else ""
    return f"= {star['n_star']:.0f}{between} at {star['train_psnr']:.2f} dB on training images"


def _range(low: float | None, high: float | None, form: str) -> str:
    """An interval in words; nothing if neither end is known."""
    if pd.isna(low) and pd.isna(high):
        return ""
    ends = ["outside the sweep" if pd.isna(value) else format(value, form) for value in (low, high)]
    return f" (95 % between {ends[0]} and {ends[1]})"


def _about_prediction(row: Mapping[str, Any]) -> str:
    text = (
        f"{row['curve']}: predicted for {row['images_seen']:,} images at {row['made']}: N* = {row['n_star']:.3g}"
        f"{_range(row['low'], row['high'], '.3g')}"
    )
    if pd.isna(row.get("measured_at")):
        return text
    found = row["bound"] if isinstance(row["bound"], str) else f"{row['measured']:.3g}"
    verdict = {True: "inside", False: "outside"}.get(row["inside"], "not known whether inside")
    return f"{text}; measured {found}: {verdict}"


def _in_short(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows for a terminal, numbers to three digits."""
    rows = rows_of(table)
    return [{key: f"{v:.3g}" if isinstance(v, float) else v for key, v in row.items()} for row in rows]
