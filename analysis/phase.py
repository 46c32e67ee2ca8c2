"""The phase diagram: the PSNR gap over N × images seen, and the line N*(images seen) on which it closes.

A trial's record has its PSNR at every evaluation, so a sweep over N gives the whole plane. A curve is all trials that
differ in nothing but N, subset, seed, length and how often they are evaluated; its cells are N × images seen. Of a
curve's trials that have N, subset and seed in common, the shortest that comes to so many images counts there.

An evaluation of an annealed training, one whose learning rate falls, is not the end of a training of that length. Of
annealed trials of several lengths the ends alone count; of one length, all evaluations do. At a constant rate every
evaluation is an end. A trial that ended because it had settled counts for N* with its last evaluation from then on.

From samples of A and B with common noise, at evaluations that lie at least a factor 2 apart, come the pair similarity,
as excess (`pair`), and the memorised fraction (`memorization`). τ_gen and τ_mem are those of `memorization`, after
Bonnaire et al. (2025), "Why diffusion models don't memorize", who find τ_mem ∝ N and the same τ_gen at all N.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter

from gahb.data.similarity import cosine, mismatched_cosine
from gahb.denoising.levels import Gap
from gahb.denoising.sampler import Sampler
from gahb.errors import UserError
from gahb.execution.analysis import AnalysisContext, AnalysisResult, rows_of
from gahb.figures import style
from gahb.tracking import lookup
from gahb.tracking.record import Record
from gahb.tracking.run import METRICS, Run
from gahb.training import cost, weights
from gahb.trial import Trial

from . import law, memorization, predictions
from .gaps import evaluations_of
from .models import TrialModel, load_trial
from .pair import check_pair, draw
from .pairs import find_pairs
from .scaling import CONFIDENCE, FLOOR, RESAMPLES, crossing, curve_names, interval, resamples

AXES = ("n_train", "subset", "seed", "images", "evaluations", "until")
"""The keys in which the trials of a curve may differ."""

COURSE = ["curve", "n_train", "subset", "seed"]
"""What trials that differ in their length alone have in common."""

ANNEALED = ("halving", "cosine")
"""Schedules under which the learning rate falls."""

APART = 2.0
"""The least factor between two evaluations that are sampled."""

NAMED = 3
"""Trials that a line names."""

MEASURES = ["samples", "memorised", "low", "high", "excess"]


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
        raise UserError(f"no trial of sweep {sweep!r} has been evaluated yet; see: gahb-sweep status")
    longest = {str(curve): int(seen) for curve, seen in evaluations.groupby("curve")["images_seen"].max().items()}
    predictions.check_lengths(longest, predict)

    counted = those_that_count(evaluations)
    course = counted.merge(_sampled(context, runs, counted, samples, seed, sampler), "left", ["run_id", "images_seen"])
    cells, stars = cells_table(course), stars_table(trials, counted, threshold, gap)
    times = times_table(trials, course)
    exponents = exponents_table(times)

    gaps = law.within(law.gaps_of(counted, gap.metric), window)
    collapses = {
        str(curve): found for curve, part in gaps.groupby("curve", sort=False) if (found := law.collapse(part))
    }
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


def read(record: Record, runs: Sequence[Run]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The trials of a sweep, a row each, ordered by resolution, parameters and N; and the same with a row for each of
    their evaluations.

    Of trials: run_id, name, state, curve, curve_id, condition (what else than resolution, network and axes tells its
    law from others), resolution, parameters, pixels, n_train, subset, seed, annealed, end (the images that it will have
    seen, or had when it finished or failed), settled (whether it ended because it had) and ends_alone (whether its
    curve counts at the ends of trials alone). Of evaluations besides: images_seen, METRICS, and `ends`, whether the
    training ends there or might as well have.
    """
    found = [run.trial for run in runs]
    names, conditions = curve_names([_without_axes(trial, found[0]) for trial in found]), _conditions(found)
    rows, parts = [], []
    for run, trial, curve, condition in zip(runs, found, names, conditions, strict=True):
        flat = trial.flat()
        own = {key: value for key, value in flat.items() if key not in AXES}
        evaluations = evaluations_of(record, run)
        over = run.state in ("finished", "failed") and len(evaluations)
        end = int(evaluations["images_seen"].max()) if over else trial.steps * trial.batch_size
        row = {
            "run_id": run.run_id,
            "name": run.name,
            "state": run.state,
            "curve": curve,
            "curve_id": hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:12],
            "condition": condition,
            "resolution": trial.dataset.resolution,
            "parameters": cost.parameters(trial.architecture, trial.dataset.resolution),
            "pixels": trial.dataset.resolution**2,
            **{key: flat[key] for key in ("n_train", "subset", "seed")},
            "annealed": trial.schedule in ANNEALED,
            "end": end,
            "settled": run.state == "finished" and end < trial.images,
        }
        rows.append(row)
        parts.append(evaluations.assign(run_id=run.run_id))
    order = ["resolution", "parameters", "curve", "n_train", "subset", "seed", "end"]
    trials = pd.DataFrame(rows).sort_values(order, ignore_index=True)
    lengths = trials.groupby("curve")["end"].transform("nunique")
    trials = trials.assign(ends_alone=trials["annealed"] & (lengths > 1))
    evaluations = trials.merge(pd.concat(parts), on="run_id")
    ends = ~evaluations["annealed"] | (evaluations["images_seen"] == evaluations["end"])
    return trials, evaluations.assign(ends=ends)


def _without_axes(trial: Trial, like: Trial) -> Trial:
    return replace(trial, seed=0, images=like.images, evaluations=1, until="images")


def _conditions(trials: Sequence[Trial]) -> list[str]:
    """What tells apart the trials that one law cannot hold for: the keys in which they differ, but for the axes of a
    curve, the resolution and the network's size."""
    flats = []
    for trial in trials:
        left_out = {*AXES, "resolution", *trial.architecture.flat()} - {"architecture"}
        flats.append({key: value for key, value in trial.flat().items() if key not in left_out})
    keys = [key for key in dict.fromkeys(key for flat in flats for key in flat)]
    told = [key for key in keys if len({repr(flat.get(key)) for flat in flats}) > 1]
    return [" ".join(f"{key}={flat[key]}" for key in told if key in flat) or "all curves" for flat in flats]


def those_that_count(evaluations: pd.DataFrame) -> pd.DataFrame:
    """One evaluation for each N, subset, seed and number of images seen of a curve: of the shortest trial; and where a
    curve counts at its ends alone, only these."""
    by_length = evaluations.sort_values("end", kind="stable").drop_duplicates([*COURSE, "images_seen"])
    chosen = by_length[~by_length["ends_alone"] | by_length["ends"]]
    return chosen.sort_index().reset_index(drop=True)


def cells_table(course: pd.DataFrame) -> pd.DataFrame:
    """A row a curve, N and number of images seen: means over subsets and seeds of METRICS, in dB, of `excess` and
    `memorised`, NaN where nothing was sampled, the number of `trials`, and whether trainings end there, `ends`.

    Args:
        course: evaluations with MEASURES.
    """
    groups = course.groupby(["curve", "resolution", "n_train", "images_seen"], sort=False)
    means = groups[[*METRICS, "excess", "memorised"]].mean()
    return means.assign(trials=groups.size(), ends=groups["ends"].all()).reset_index()


def stars_table(trials: pd.DataFrame, counted: pd.DataFrame, threshold: float, gap: Gap) -> pd.DataFrame:
    """A row a curve and number of images seen at which several N were evaluated: curve, resolution, parameters, pixels,
    images_seen, `n_star` with its interval `low` to `high` (NaN stands for what lies outside the N evaluated there),
    or its `bound`, "< least N" or "> largest N"; the `train_psnr` at N*, in dB, interpolated in log N; the number of
    `replicates`; how many trials that come to so many images are `missing` there; and `ends`, as of cells.

    Args:
        trials: as `read` makes it.
        counted: as `those_that_count` makes it.
        threshold: in dB.
        gap: the one that crosses it.
    """
    rows = []
    for curve, of_curve in _with_settled(counted).groupby("curve", sort=False):
        same = trials[trials["curve"] == curve]
        for images, group in of_curve.groupby("images_seen"):
            gaps = group.pivot_table(index=["subset", "seed"], columns="n_train", values=gap.metric)
            sizes = [int(str(n)) for n in gaps.columns]
            if len(sizes) < 2:
                continue
            star = crossing(sizes, gaps.mean().tolist(), threshold)
            low, high = interval(sizes, gaps.to_numpy(), threshold) if len(gaps) > 1 else (math.nan, math.nan)
            found = {"n_star": star, "low": low, "high": high}
            inside = {key: value if 0 < value < math.inf else math.nan for key, value in found.items()}
            outside = f"< {sizes[0]}" if star == 0 else f"> {sizes[-1]}"
            psnr = group.groupby("n_train")["train_psnr"].mean()
            due = same[same["end"] == images] if same["ends_alone"].any() else same[same["end"] >= images]
            rows.append(
                {
                    **{
                        key: group[key].iloc[0]
                        for key in ("curve", "resolution", "parameters", "pixels", "images_seen")
                    },
                    **inside,
                    "bound": None if math.isfinite(inside["n_star"]) else outside,
                    "train_psnr": float(np.interp(np.log(inside["n_star"]), np.log(sizes), psnr)),
                    "replicates": len(gaps),
                    "missing": len(set(map(tuple, due[COURSE].to_numpy())) - set(map(tuple, group[COURSE].to_numpy()))),
                    "ends": bool(group["ends"].all()),
                }
            )
    columns = ["curve", "resolution", "parameters", "pixels", "images_seen", "n_star", "low", "high", "bound"]
    return pd.DataFrame(rows, columns=[*columns, "train_psnr", "replicates", "missing", "ends"])


def _with_settled(counted: pd.DataFrame) -> pd.DataFrame:
    """The same, and the last evaluation of each trial that has settled wherever its curve was evaluated later."""
    settled = counted[counted["settled"] & (counted["images_seen"] == counted["end"])]
    seen = counted[["curve", "images_seen"]].drop_duplicates()
    later = settled.drop(columns="images_seen").merge(seen, on="curve")
    later = later.loc[later["images_seen"] > later["end"], counted.columns]
    return pd.concat([counted, later]).drop_duplicates([*COURSE, "images_seen"]) if len(later) else counted


def _sampled(
    context: AnalysisContext, runs: Sequence[Run], counted: pd.DataFrame, samples: int, seed: int, sampler: Sampler
) -> pd.DataFrame:
    """run_id, images_seen and MEASURES of the finished pairs of N ≥ 2; see `measure`."""
    finished = [run for run in runs if samples and run.state == "finished" and run.flat["n_train"] >= 2]
    seen = counted.groupby("run_id")["images_seen"].agg(set)
    work, names = [], []
    for a, b in _pairs(finished):
        common = seen.get(a.run_id, set()) & seen.get(b.run_id, set())
        work.append((a, b, apart(common), samples, seed, sampler))
        names.append(f"{a.name} and {b.name}")
    parts = context.map_on_cluster(_measure_pair, work, names) if work else []
    return pd.concat([pd.DataFrame(columns=["run_id", "images_seen", *MEASURES]).astype(TYPES), *parts])


TYPES = {"run_id": str, "images_seen": int, **dict.fromkeys(MEASURES, float)}


def _pairs(runs: Sequence[Run]) -> list[tuple[Run, Run]]:
    try:
        return find_pairs(runs)
    except UserError:
        return []


def apart(images_seen: Sequence[int] | set[int]) -> list[int]:
    """The last of some numbers of images, and before it those at least a factor APART from the next that is chosen."""
    chosen = list[int]()
    for images in sorted(images_seen, reverse=True):
        if not chosen or images * APART <= chosen[-1]:
            chosen.append(images)
    return chosen[::-1]


def _measure_pair(context: AnalysisContext, work: tuple[Run, Run, Sequence[int], int, int, Sampler]) -> pd.DataFrame:
    run_a, run_b, chosen, count, seed, sampler = work
    a, b = load_trial(context, run_a), load_trial(context, run_b)
    check_pair(a, b)
    nets_a, nets_b = (
        {
            seen: net
            for seen, net in weights.read_weight_history(context.record.artifacts(run.run_id), context.device)
            if seen in chosen
        }
        for run in (run_a, run_b)
    )
    rows = list[dict[str, Any]]()
    for seen in sorted(nets_a.keys() & nets_b.keys()):
        then = replace(a, denoiser=nets_a[seen]), replace(b, denoiser=nets_b[seen])
        rows += [{**row, "images_seen": seen} for row in measure(*then, count, seed, context.device, sampler)]
    return pd.DataFrame(rows, columns=list(TYPES)).astype(TYPES)


def measure(
    a: TrialModel, b: TrialModel, count: int, seed: int, device: torch.device, sampler: Sampler | None = None
) -> list[dict[str, Any]]:
    """run_id and MEASURES of each of two models, from one set of samples with common noise: how many `samples`
    converged, the `memorised` fraction of them with its interval `low` to `high`, and the pair's mean `excess` over
    samples that converged in both, NaN if these are fewer than two."""
    drawn = draw(a, b, count, seed, device, sampler)
    both = drawn[0].converged & drawn[1].converged
    images = drawn[0].images[both], drawn[1].images[both]
    excess = math.nan
    if len(images[0]) >= 2:
        excess = float((cosine(*images, centred=True) - mismatched_cosine(*images, centred=True)).mean())
    rows = []
    for model, own in zip((a, b), drawn, strict=True):
        outcomes = memorization.copies(own, model.train_images)
        low, high = memorization.bootstrap_interval(outcomes)
        fraction = float(outcomes.mean()) if len(outcomes) else math.nan
        values = (len(outcomes), fraction, low, high, excess)
        rows.append({"run_id": model.run.run_id, **dict(zip(MEASURES, values, strict=True))})
    return rows


def times_table(trials: pd.DataFrame, course: pd.DataFrame) -> pd.DataFrame:
    """A row for each N ≥ 2, subset and seed of a curve whose trials have all finished: `tau_gen` and `tau_mem` in
    images seen, and the `bound` of the latter, "> images seen", where the memorised fraction has not exceeded one half.
    NaN and None where nothing was sampled.

    Args:
        trials: as `read` makes it.
        course: evaluations with MEASURES.
    """
    whole = {key for key, group in trials.groupby(COURSE) if (group["state"] == "finished").all()}
    rows = list[dict[str, Any]]()
    for key, group in course[course["n_train"] >= 2].groupby(COURSE, sort=False):
        if key not in whole:
            continue
        (found,) = memorization.times(group.assign(run_id="", name="")).to_dict("records")
        sampled = group.loc[group["memorised"].notna(), "images_seen"]
        reached = math.isfinite(found["tau_mem"]) or sampled.empty
        rows.append(
            {
                **dict(zip(COURSE, key, strict=True)),
                "tau_gen": found["tau_gen"],
                "tau_mem": found["tau_mem"],
                "bound": None if reached else f"> {sampled.max()}",
            }
        )
    return pd.DataFrame(rows, columns=[*COURSE, "tau_gen", "tau_mem", "bound"])


def exponents_table(times: pd.DataFrame) -> pd.DataFrame:
    """A row a curve and time: the `exponent` of N in it, by least squares of log τ in log N, with its interval, `low`
    to `high`, a bootstrap over trials; how many `trials` it is of, and how many were `censored`, having a bound. An N
    with one of these is left out whole, since its other trials are the quick ones."""
    rows = []
    for curve, group in times.groupby("curve", sort=False):
        censored = group["bound"].notna()
        for time in ("tau_gen", "tau_mem"):
            known = group[group[time].notna()]
            if time == "tau_mem":
                if not len(known) and not censored.any():
                    continue  # nothing was sampled
                known = known[~known["n_train"].isin(group.loc[censored, "n_train"])]
            exponent, low, high = _slope(np.log(known["n_train"].to_numpy(float)), np.log(known[time].to_numpy(float)))
            rows.append(
                {
                    "curve": curve,
                    "time": time,
                    "exponent": exponent,
                    "low": low,
                    "high": high,
                    "trials": len(known),
                    "censored": int(censored.sum()) if time == "tau_mem" else 0,
                }
            )
    return pd.DataFrame(rows, columns=["curve", "time", "exponent", "low", "high", "trials", "censored"])


def _slope(x: law.Vector, y: law.Vector) -> tuple[float, float, float]:
    """The slope of y in x and its bootstrap interval; NaN of a single x."""
    if len(set(x)) < 2:
        return math.nan, math.nan, math.nan
    slopes, (rows, times) = [], resamples(len(x), RESAMPLES)
    for chosen in [np.arange(len(x)), *rows]:
        off = x[chosen] - x[chosen].mean()
        slopes.append(round(float(off @ y[chosen] / (off @ off)), 9) if np.ptp(x[chosen]) else math.nan)
    drawn = np.repeat(slopes[1:], times)
    low, high = np.nanquantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return slopes[0], float(low), float(high)


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
    collapses: Mapping[str, law.Collapse],
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


def figure(
    course: pd.DataFrame,
    cells: pd.DataFrame,
    stars: pd.DataFrame,
    times: pd.DataFrame,
    exponents: pd.DataFrame,
    collapses: Mapping[str, law.Collapse],
    predicted: pd.DataFrame,
    threshold: float,
    gap: Gap,
) -> Figure:
    """A row a curve: the gap over N × images seen with N* and its predictions; excess and memorised fraction, where
    samples were drawn; τ against N; and the gap against images/N^q."""
    curves = list(cells["curve"].unique())
    sampled = bool(course["memorised"].notna().any())
    picture = Figure(figsize=(13 + 4 * sampled, 0.4 + 3.7 * len(curves)), layout="constrained")
    grid = picture.subplots(len(curves), 3 + sampled, squeeze=False, width_ratios=[1.25, *[1] * (2 + sampled)])
    shown = cells[gap.metric].clip(lower=threshold / 30)
    colours = LogNorm(shown.min(), max(shown.max(), 1.01 * shown.min()))
    for curve, (plane, *between, ages, together) in zip(curves, grid, strict=True):
        own, star = cells[cells["curve"] == curve], stars[stars["curve"] == curve]
        mesh = _draw_plane(plane, own.assign(shown=shown[own.index]), colours)
        picture.colorbar(mesh, ax=plane, label=f"PSNR gap (dB), over {gap.average}", extend="min", format="%g")
        later = predicted[(predicted["curve"] == curve) & (predicted["law"] == "saturating")]
        same = (later["threshold_db"] == threshold) & (later["gap"] == gap.value)
        _draw_stars(plane, star, later[same], own["n_train"])
        plane.set_title(style.plain(str(curve)), fontsize=9)
        for axes in between:
            _draw_samples(axes, own)
        _draw_times(ages, times[times["curve"] == curve], exponents[exponents["curve"] == curve])
        _draw_collapse(together, own, collapses.get(curve), threshold, gap)
    return picture


def _draw_plane(axes: Axes, cells: pd.DataFrame, colours: LogNorm) -> Any:
    table = cells.pivot_table(index="n_train", columns="images_seen", values="shown")
    x, y = (_edges(np.array(axis, dtype=float)) for axis in (table.columns, table.index))
    mesh = axes.pcolormesh(x, y, np.ma.masked_invalid(table.to_numpy()), norm=colours, cmap="cividis")
    _logarithmic(axes, "images seen", "training images N")
    return mesh


def _edges(values: law.Vector) -> law.Vector:
    """The borders of cells around ascending values, halfway between them on a logarithmic axis."""
    if len(values) == 1:
        return np.array([values[0] / math.sqrt(2), values[0] * math.sqrt(2)])
    middles = np.sqrt(values[1:] * values[:-1])
    return np.array([values[0] ** 2 / middles[0], *middles, values[-1] ** 2 / middles[-1]])


def _logarithmic(axes: Axes, x: str, y: str, *, of: Sequence[str] = "xy") -> None:
    """Label the axes; those named are logarithmic, with ticks like 0.1, 1, 500, 2k."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    for name in of:
        axes.set(**{f"{name}scale": "log"})
        axis = axes.xaxis if name == "x" else axes.yaxis
        low, high = axis.get_view_interval()
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 300 * low else (1,)))
        axis.set_major_formatter(FuncFormatter(_tick))
        axis.set_minor_formatter(NullFormatter())


def _tick(value: float, position: int) -> str:
    return EngFormatter(sep="")(value) if value >= 1 else f"{value:g}"


def _draw_stars(axes: Axes, stars: pd.DataFrame, predicted: pd.DataFrame, sizes: pd.Series) -> None:
    """N* with intervals, triangles where it lies beyond the N of the sweep, and predictions."""
    colour = style.COLOURS[1]
    known = stars[stars["n_star"].notna()]
    bars = _bars(known)
    axes.errorbar(known["images_seen"], known["n_star"], bars, color=colour, capsize=2, marker="o", mec="white")
    for side, marker, at in (("<", "v", sizes.min()), (">", "^", sizes.max())):
        beyond = stars.loc[[str(bound).startswith(side) for bound in stars["bound"]]]
        axes.plot(beyond["images_seen"], [at] * len(beyond), marker, color=colour, mec="white")
    handles = [Line2D([], [], color=colour, marker="o", mec="white", label="N*")]
    if len(predicted):
        parts = [table[["images_seen", "n_star"]] for table in (known.iloc[-1:], predicted)]
        points = pd.concat(parts).sort_values("images_seen")
        axes.plot(points["images_seen"], points["n_star"], "--", color="0.35", linewidth=1)
        at, bars = predicted["images_seen"], _bars(predicted)
        axes.errorbar(at, predicted["n_star"], bars, fmt="D", color="0.35", mfc="white", capsize=3)
        handles.append(Line2D([], [], color="0.35", marker="D", linestyle="none", mfc="white", label="predicted"))
    axes.legend(handles=handles, fontsize=7, loc="upper left", framealpha=0.85)


def _bars(table: pd.DataFrame) -> law.Vector:
    """Error bars of n_star downward and upward, (2, rows), of no length where an end is not known."""
    return np.nan_to_num(np.clip([table["n_star"] - table["low"], table["high"] - table["n_star"]], 0, None))


def _colours(cells: pd.DataFrame) -> dict[int, Any]:
    """A colour for each N, from dark to light."""
    sizes = sorted(cells["n_train"].unique())
    return dict(zip(sizes, colormaps["viridis"](np.linspace(0, 0.88, len(sizes))), strict=True))


def _draw_samples(axes: Axes, cells: pd.DataFrame) -> None:
    """Of N ≥ 2, the excess and the memorised fraction against images seen."""
    sampled = cells[cells["memorised"].notna()]
    handles = [
        Line2D([], [], color="0.3", marker="o", label="excess"),
        Line2D([], [], color="0.3", marker="s", linestyle="--", mfc="white", label="memorised"),
    ]
    for n, colour in _colours(sampled).items():
        group = sampled[sampled["n_train"] == n]
        axes.plot(group["images_seen"], group["excess"], "o-", color=colour, markersize=4)
        axes.plot(group["images_seen"], group["memorised"], "s--", color=colour, markersize=4, mfc="white")
        handles.append(Line2D([], [], color=colour, label=f"N = {n:,}"))
    axes.set_ylim(top=1.04)
    _logarithmic(axes, "images seen", "similarity of a pair; fraction of samples", of="x")
    axes.legend(handles=handles, fontsize=7, framealpha=0.85)
    axes.grid(alpha=0.3)


def _draw_times(axes: Axes, times: pd.DataFrame, exponents: pd.DataFrame) -> None:
    """τ of each trial, open triangles where it is a bound, and the power of N that was fitted."""
    bounds = times[times["bound"].notna()]
    for time, name, marker, colour in (
        ("tau_gen", "τ_gen", "o", style.COLOURS[0]),
        ("tau_mem", "τ_mem", "s", style.COLOURS[1]),
    ):
        known = times[times[time].notna()]
        exponent = exponents.loc[exponents["time"] == time, "exponent"].max()
        if math.isfinite(exponent):
            name += f" ∝ N^{round(exponent, 2) + 0.0:.2f}"
            fitted = known if time == "tau_gen" else known[~known["n_train"].isin(bounds["n_train"])]
            log_n, log_tau = np.log(fitted["n_train"]), np.log(fitted[time].astype(float))
            line = np.exp(log_tau.mean() + exponent * (log_n - log_n.mean()))
            axes.plot(fitted["n_train"], line, color=colour, linewidth=1)
        if len(known):
            axes.plot(known["n_train"], known[time], marker, color=colour, markersize=5, label=name)
    if len(bounds):
        at = [float(bound.removeprefix("> ")) for bound in bounds["bound"]]
        axes.plot(bounds["n_train"], at, "^", color=style.COLOURS[1], mfc="white", label="τ_mem beyond")
    _logarithmic(axes, "training images N", "images seen")
    if len(times):
        axes.legend(fontsize=7, framealpha=0.85)
    axes.grid(alpha=0.3)


def _draw_collapse(axes: Axes, cells: pd.DataFrame, collapse: law.Collapse | None, threshold: float, gap: Gap) -> None:
    """The gap against images/N^q, at q = 1 where q was not found."""
    q = collapse.q if collapse and not collapse.bound else 1.0
    for n, colour in _colours(cells).items():
        group = cells[(cells["n_train"] == n) & (cells[gap.metric] > FLOOR)]
        axes.plot(group["images_seen"] / n**q, group[gap.metric], "o-", color=colour, markersize=3, label=f"N = {n:,}")
    axes.axhline(threshold, color="0.5", linewidth=1, linestyle="--")
    _logarithmic(axes, f"images seen / N^{q:.2f}", f"PSNR gap (dB), over {gap.average}")
    axes.set_ylim(bottom=threshold / 100)
    axes.legend(fontsize=7, framealpha=0.85)
    axes.grid(alpha=0.3)
