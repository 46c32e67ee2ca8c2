"""The phase diagram of a sweep: where the PSNR gap closes over N × images seen (`plane`), what pairs of models do there
(`courses`), the law of it (`law`), its gap curves as one (`collapse`), and what that predicts (`predictions`).

A trial's record has its PSNR at every evaluation, so a sweep over N gives the whole plane.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from gahb import sentences
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

TIMES = {"tau_gen": "τ_gen, when a trial generalises,", "tau_mem": "τ_mem, when it memorises,"}


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
        shown=[_in_short(stars.drop(columns=["resolution", "parameters", "pixels"]))],
        lines=_lines(trials, stars, exponents, times, collapses, everything, samples, threshold, gap),
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
    exponents: pd.DataFrame,
    times: pd.DataFrame,
    collapses: Mapping[str, Collapse],
    predicted: pd.DataFrame,
    samples: int,
    threshold: float,
    gap: Gap,
) -> list[str]:
    """What is missing, how times and gaps depend on N, and last the answer: N* as measured and as predicted."""
    lines = [*_about_trials(trials, stars)]
    if samples:
        lines.append(f"samples were drawn at evaluations at least a factor {APART:g} apart, of finished pairs of N ≥ 2")
    for row in rows_of(exponents[exponents["exponent"].notna()]):
        power = f"{_two_digits(row['exponent'])}{_range(row['low'], row['high'])}"
        lines.append(f"{row['curve']}: {TIMES[row['time']]} goes as N^q, q = {power}")
    for curve, group in times[times["bound"].notna()].groupby("curve", sort=False):
        sizes = ", ".join(f"{n:,}" for n in group["n_train"].unique())
        lines.append(
            f"{curve}: {len(group)} trials, of N = {sizes}, never draw more than half of their samples from memory: "
            "their τ_mem is a bound, and the exponent is that of the other N"
        )
    for curve, found in collapses.items():
        q = f"q {found.bound}" if found.bound else f"q = {found.q:.2f}{_range(found.low, found.high)}"
        lines.append(
            f"{curve}: the gap as a function of images/N^q: {q}, which leaves {found.spread:.2f} of log gap, and q = 1 "
            f"{found.spread_at_one:.2f}"
        )
    for curve, of_curve in stars.groupby("curve", sort=False):
        star = of_curve.iloc[-1]
        subsets = set(trials.loc[trials["curve"] == curve, "subset"])
        what = f"after {star['images_seen']:,} images the gap averaged over {gap.average}"
        lines.append(f"{curve}: {_measured(star, what, f'{threshold:g} dB', subsets)}")
    foretold = [_about_prediction(row) for row in rows_of(predicted[predicted["law"].isin(predictions.TOLD)])]
    return [*lines, *dict.fromkeys(foretold)]


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


def _measured(star: pd.Series, what: str, threshold: str, subsets: set[str]) -> str:
    if isinstance(star["bound"], str):
        return sentences.crossing(what, threshold, "", star["bound"])
    rests_on = sentences.of_replicates(star["replicates"], subsets)
    n_star = sentences.with_interval(star["n_star"], star["low"], star["high"], rests_on)
    return f"{sentences.crossing(what, threshold, n_star, None)}, with {star['train_psnr']:.2f} dB on training images"


def _range(low: float | None, high: float | None) -> str:
    """The interval of an exponent; nothing if it is not known."""
    return "" if low is None or high is None or math.isnan(low) else f" (95 % {_two_digits(low)} … {_two_digits(high)})"


def _two_digits(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}"  # without the sign of zero


def _about_prediction(row: Mapping[str, Any]) -> str:
    known = {row["low"], row["high"]} != {None}
    n_star = sentences.with_interval(row["n_star"], row["low"], row["high"], "95 %" if known else "")
    law = f"{row['law']} law, fitted up to {row['longest']:,}"
    text = f"{row['curve']}: after {row['images_seen']:,} images ({law}): N* = {n_star}"
    if pd.isna(row.get("measured_at")):
        return text
    found = row["bound"] if isinstance(row["bound"], str) else sentences.three_digits(row["measured"])
    verdict = {True: "inside", False: "outside"}.get(row["inside"], "not known whether inside")
    return f"{text}; measured {found}: {verdict}"


def _in_short(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows for a terminal, numbers to three digits."""
    rows = rows_of(table)
    return [{key: f"{v:.3g}" if isinstance(v, float) else v for key, v in row.items()} for row in rows]
