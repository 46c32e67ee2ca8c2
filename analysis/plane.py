"""The plane of a phase diagram: the PSNR gap over N × images seen, and the line N*(images seen) on which it closes.

A curve is all trials that differ in nothing but N, subset, seed, length and how often they are evaluated; its cells are
N × images seen. Of a curve's trials that have N, subset and seed in common, the shortest that comes to so many images
counts there.

An evaluation of an annealed training, one whose learning rate falls, is not the end of a training of that length. Of
annealed trials of several lengths the ends alone count; of one length, all evaluations do. At a constant rate every
evaluation is an end. A trial that ended because it had settled counts for N* with its last evaluation from then on.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from gahb.denoising.levels import Gap
from gahb.tracking.evaluations import evaluations_of
from gahb.tracking.record import Record
from gahb.tracking.run import METRICS, Run
from gahb.training import cost
from gahb.trial import Trial

from .scaling import crossing, curve_names, interval

AXES = ("n_train", "subset", "seed", "images", "evaluations", "until")
"""The keys in which the trials of a curve may differ."""

COURSE = ["curve", "n_train", "subset", "seed"]
"""What trials that differ in their length alone have in common."""

ANNEALED = ("halving", "cosine")
"""Schedules under which the learning rate falls."""


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
