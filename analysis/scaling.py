"""Where does the PSNR gap close? Gap against N, and the N at which it crosses a threshold (Figure 15, appendix B.4).

A curve is all trials that differ in nothing but N, subset and seed; its spread is over subsets and seeds. The crossing
N* is found by interpolating log gap linearly in log N, between the last N above the threshold and the next.
"""

import json
import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from gahb import figures
from gahb.record import Run

FLOOR = 1e-3
"""The lowest gap that the picture shows, in dB; smaller and negative ones lie on it."""

VARYING = ("n_train", "subset", "seed")


def trials_table(runs: Sequence[Run]) -> pd.DataFrame:
    """A row a trial: run_id, curve, resolution, n_train, subset, seed, train_psnr, test_psnr, psnr_gap."""
    flats = [json.loads(run.tags["gahb.trial"]) for run in runs]
    keys = [key for key in flats[0] if key not in VARYING and len({repr(flat.get(key)) for flat in flats}) > 1]
    by_resolution = {
        repr(flat["resolution"]): {
            repr([f.get(k) for k in keys]) for f in flats if f["resolution"] == flat["resolution"]
        }
        for flat in flats
    }
    if all(len(settings) == 1 for settings in by_resolution.values()):
        keys = ["resolution"]
    rows = []
    for run, flat in zip(runs, flats, strict=True):
        rest = [f"{key}={flat.get(key)}" for key in keys if key != "resolution"]
        rows.append(
            {
                "run_id": run.run_id,
                "curve": " ".join([f"{flat['resolution']}×{flat['resolution']}", *rest]),
                "resolution": flat["resolution"],
                **{key: flat[key] for key in VARYING},
                **{key: run.metrics[key] for key in ("train_psnr", "test_psnr", "psnr_gap")},
            }
        )
    return pd.DataFrame(rows)


def scaling_table(trials: pd.DataFrame) -> pd.DataFrame:
    """A row for each curve and N: the means over subsets and seeds, the gap's standard deviation, least and largest."""
    groups = trials.groupby(["curve", "resolution", "n_train"], sort=False)
    table = groups.agg(
        train_psnr=("train_psnr", "mean"),
        test_psnr=("test_psnr", "mean"),
        psnr_gap=("psnr_gap", "mean"),
        gap_sd=("psnr_gap", "std"),
        gap_min=("psnr_gap", "min"),
        gap_max=("psnr_gap", "max"),
        trials=("psnr_gap", "size"),
    )
    return table.reset_index().sort_values(["resolution", "curve", "n_train"], ignore_index=True)


def crossings(table: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """A row a curve: `n_star`, the N at which its gap falls below `threshold` dB; NaN where the gap is below it
    already at the least N or above it still at the largest."""
    rows = []
    for (curve, resolution), group in table.groupby(["curve", "resolution"], sort=False):
        star = crossing(group["n_train"].tolist(), group["psnr_gap"].tolist(), threshold)
        rows.append({"curve": curve, "resolution": resolution, "threshold_db": threshold, "n_star": star})
    return pd.DataFrame(rows)


def crossing(n_train: Sequence[int], gaps: Sequence[float], threshold: float) -> float:
    """N* for one curve, N ascending; NaN if the gap does not cross."""
    above = [i for i, gap in enumerate(gaps) if gap > threshold]
    if not above or above[-1] == len(gaps) - 1:
        return math.nan
    i = above[-1]
    low, high = math.log(gaps[i]), math.log(max(gaps[i + 1], FLOOR))
    share = (low - math.log(threshold)) / (low - high)
    return math.exp(math.log(n_train[i]) + share * (math.log(n_train[i + 1]) - math.log(n_train[i])))


def figure(table: pd.DataFrame, stars: pd.DataFrame) -> Figure:
    """Figure 15: gap against N, both logarithmic, a curve for each resolution; bars from least to largest trial."""
    picture = Figure(figsize=(5.5, 4.2), layout="constrained")
    axes = picture.subplots()
    markers = "osD^v<>p"
    for i, (curve, group) in enumerate(table.groupby("curve", sort=False)):
        colour = figures.COLOURS[i % len(figures.COLOURS)]
        gap, low, high = (group[key].clip(lower=FLOOR) for key in ("psnr_gap", "gap_min", "gap_max"))
        axes.errorbar(
            group["n_train"],
            gap,
            yerr=[gap - low, high - gap],
            color=colour,
            marker=markers[i % len(markers)],
            markersize=5,
            capsize=2,
            label=str(curve),
        )
        star = stars.loc[stars["curve"] == curve, "n_star"].iloc[0]
        if math.isfinite(star):
            axes.axvline(star, color=colour, linestyle=":", linewidth=1)
    threshold = stars["threshold_db"].iloc[0]
    axes.axhline(threshold, color="0.5", linewidth=1, linestyle="--", label=f"{threshold:g} dB")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(bottom=FLOOR * 0.8)
    axes.set_xlabel("training images N")
    axes.set_ylabel("PSNR gap, train - test (dB)")
    axes.legend(frameon=False, fontsize=8)
    axes.grid(alpha=0.3)
    return picture
