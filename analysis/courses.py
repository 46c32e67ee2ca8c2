"""Pair similarity and memorised fraction on the way of a training, and the times that these give.

From samples of A and B with common noise, at evaluations that lie at least a factor 2 apart, come the pair similarity,
as excess (`pair`), and the memorised fraction (`memorization`). τ_gen and τ_mem are those of `memorization`, after
Bonnaire et al. (2025), "Why diffusion models don't memorize", who find τ_mem ∝ N and the same τ_gen at all N.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from gahb.data.similarity import cosine, mismatched_cosine
from gahb.denoising.sampler import Sampler
from gahb.execution.analysis import AnalysisContext
from gahb.tracking import lookup
from gahb.tracking.run import Run
from gahb.training import weights

from . import memorization
from .gaps import Vector
from .models import TrialModel, load_trial
from .pair import check_pair, draw
from .plane import COURSE
from .scaling import CONFIDENCE, RESAMPLES, resamples

APART = 2.0
"""The least factor between two evaluations that are sampled."""

MEASURES = ["samples", "memorised", "low", "high", "excess"]


def sampled(
    context: AnalysisContext, runs: Sequence[Run], counted: pd.DataFrame, samples: int, seed: int, sampler: Sampler
) -> pd.DataFrame:
    """run_id, images_seen and MEASURES of the finished pairs of N ≥ 2; see `measure`."""
    finished = [run for run in runs if samples and run.state == "finished" and run.flat["n_train"] >= 2]
    seen = counted.groupby("run_id")["images_seen"].agg(set)
    work, names = [], []
    for a, b in lookup.pairs(finished):
        common = seen.get(a.run_id, set()) & seen.get(b.run_id, set())
        work.append((a, b, apart(common), samples, seed, sampler))
        names.append(f"{a.name} and {b.name}")
    parts = context.map_on_cluster(_measure_pair, work, names) if work else []
    return pd.concat([pd.DataFrame(columns=["run_id", "images_seen", *MEASURES]).astype(TYPES), *parts])


TYPES = {"run_id": str, "images_seen": int, **dict.fromkeys(MEASURES, float)}


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
        low, high = memorization.fraction_interval(outcomes)
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


def _slope(x: Vector, y: Vector) -> tuple[float, float, float]:
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
