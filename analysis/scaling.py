"""Where does the PSNR gap close? Gap against N, and the N at which it crosses a threshold (Figure 15, appendix B.4).

The gap is the one that is uniform in σ, or the one that is uniform in decibels (`gahb.denoising.psnr`): the paper does
not say which it is. A curve is all trials that differ in nothing but N, subset and seed; its spread is over subsets and
seeds. The crossing N* is found by interpolating log gap linearly in log N, between the last N above the threshold and
the next. Its interval is the 95 % percentile bootstrap over replicates, a replicate being the trials of one subset and
seed at all N; with A and B of one seed alone it merely spans the two.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter, StrMethodFormatter
from numpy.typing import NDArray

from gahb import sentences
from gahb.denoising.levels import Gap
from gahb.execution.analysis import AnalysisContext, AnalysisResult, rows_of
from gahb.figures import style
from gahb.grids import curve_names
from gahb.tracking.evaluations import trial_metrics
from gahb.tracking.record import Record
from gahb.tracking.run import Run
from gahb.training import cost

from .underway import trials_of

FLOOR = 1e-3
"""The lowest gap that the picture shows, in dB; smaller and negative ones lie on it, and no bar leads to them."""

RESAMPLES = 1000
CONFIDENCE = 0.95
MARKERS = "osD^v<>p"


def run(context: AnalysisContext, *, sweep: str, threshold: float, gap: Gap = Gap.SIGMA) -> AnalysisResult:
    """The result of `gahb-analyze scaling`.

    Args:
        sweep: a sweep in the record.
        threshold: the PSNR gap in dB that counts as closed.
        gap: which of the two gaps is drawn and crosses it.
    """
    under_way = trials_of(context, sweep)
    runs = under_way.finished
    trials = trials_table(context.record, runs)
    table, stars = scaling_table(trials, gap), crossings(trials, threshold, gap)
    rows, crossed = rows_of(table), rows_of(stars)
    return AnalysisResult(
        name=f"scaling of {sweep}",
        sweep=sweep,
        runs=runs,
        settings={"threshold": threshold, "gap": gap.value},
        metrics={f"n_star_{i}": star["n_star"] for i, star in enumerate(crossed) if star["n_star"]},
        tables={"scaling": table, "crossings": stars, "trials": trials},
        pictures={"scaling": figure(table, stars)},
        data={"scaling": rows, "crossings": crossed, "unfinished": under_way.rows},
        shown=[rows],
        lines=[*in_words(table, stars, trials), *under_way.lines],
    )


def in_words(table: pd.DataFrame, stars: pd.DataFrame, trials: pd.DataFrame) -> list[str]:
    """Where the gap of each curve closes, from what `scaling_table`, `crossings` and `trials_table` make."""
    lines = []
    for star in rows_of(stars):
        group, subsets = (part[part["curve"] == star["curve"]] for part in (table, trials))
        kind, n_star, bound = Gap(star["gap"]), "", None
        if star["n_star"]:
            rests_on = sentences.of_replicates(star["replicates"], set(subsets["subset"]))
            n_star = sentences.with_interval(star["n_star"], star["low"], star["high"], rests_on)
        elif group[kind.metric].iloc[-1] > star["threshold_db"]:
            bound = f"> {group['n_train'].max()}"
        else:
            bound = f"< {group['n_train'].min()}"
        what, threshold = f"the gap averaged over {kind.average}", f"{star['threshold_db']:g} dB"
        lines.append(f"{star['curve']}: {sentences.crossing(what, threshold, n_star, bound)}")
    return lines


def trials_table(record: Record, runs: Sequence[Run]) -> pd.DataFrame:
    """A row a trial: run_id, curve, resolution, parameters, n_train, subset, seed, train_psnr, test_psnr, psnr_gap,
    psnr_gap_db."""
    trials = [run.trial for run in runs]
    rows = []
    for run, trial, curve in zip(runs, trials, curve_names(trials), strict=True):
        flat = trial.flat()
        rows.append(
            {
                "run_id": run.run_id,
                "curve": curve,
                "resolution": flat["resolution"],
                "parameters": cost.parameters(trial.architecture, trial.dataset.resolution),
                **{key: flat[key] for key in ("n_train", "subset", "seed")},
                **trial_metrics(record, run),
            }
        )
    return pd.DataFrame(rows)


def scaling_table(trials: pd.DataFrame, gap: Gap = Gap.SIGMA) -> pd.DataFrame:
    """A row for each curve and N: the means over subsets and seeds, the gap's standard deviation, least and largest."""
    chosen = gap.metric
    groups = trials.groupby(["curve", "resolution", "n_train"], sort=False)
    table = groups.agg(
        train_psnr=("train_psnr", "mean"),
        test_psnr=("test_psnr", "mean"),
        psnr_gap=("psnr_gap", "mean"),
        psnr_gap_db=("psnr_gap_db", "mean"),
        gap_sd=(chosen, "std"),
        gap_min=(chosen, "min"),
        gap_max=(chosen, "max"),
        trials=(chosen, "size"),
    )
    return table.reset_index().sort_values(["resolution", "curve", "n_train"], ignore_index=True)


def crossings(trials: pd.DataFrame, threshold: float, gap: Gap = Gap.SIGMA) -> pd.DataFrame:
    """A row a curve: curve, resolution, parameters, threshold_db, gap, `n_star`, the N at which the mean gap falls
    below the threshold, `low` and `high`, its interval, and the number of `replicates`. NaN stands for what lies
    outside the N of the sweep.

    Args:
        trials: as `trials_table` makes it.
        threshold: in dB.
        gap: the one that crosses it.
    """
    rows = []
    for (curve, resolution, parameters), group in trials.groupby(["curve", "resolution", "parameters"], sort=False):
        gaps = group.pivot_table(index=["subset", "seed"], columns="n_train", values=gap.metric)
        sizes = [int(str(n)) for n in gaps.columns]
        star = crossing(sizes, gaps.mean().tolist(), threshold)
        low, high = interval(sizes, gaps.to_numpy(), threshold) if len(gaps) > 1 else (math.nan, math.nan)
        found = {"n_star": star, "low": low, "high": high}
        rows.append(
            {
                "curve": curve,
                "resolution": resolution,
                "parameters": parameters,
                "threshold_db": threshold,
                "gap": gap.value,
                **{key: value if 0 < value < math.inf else math.nan for key, value in found.items()},
                "replicates": len(gaps),
            }
        )
    return pd.DataFrame(rows).sort_values(["resolution", "parameters"], kind="stable", ignore_index=True)


def crossing(n_train: Sequence[int], gaps: Sequence[float], threshold: float) -> float:
    """N* for one curve, N ascending; 0 if the gap is below the threshold already at the least N, infinite if it is
    above it still at the largest."""
    above = [i for i, gap in enumerate(gaps) if gap > threshold]
    if not above:
        return 0.0
    if above[-1] == len(gaps) - 1:
        return math.inf
    i = above[-1]
    low, high = math.log(gaps[i]), math.log(max(gaps[i + 1], FLOOR))
    share = (low - math.log(threshold)) / (low - high)
    return math.exp(math.log(n_train[i]) + share * (math.log(n_train[i + 1]) - math.log(n_train[i])))


def interval(n_train: Sequence[int], gaps: NDArray[np.float64], threshold: float) -> tuple[float, float]:
    """The bootstrap interval of N* from gaps (replicates, N), as `crossing` gives it; a replicate may lack some N."""
    stars = []
    different, times = resamples(len(gaps), RESAMPLES)
    for chosen in gaps[different]:
        known = ~np.isnan(chosen).all(axis=0)
        means = np.nanmean(chosen[:, known], axis=0).tolist()
        stars.append(crossing([n for n, there in zip(n_train, known, strict=True) if there], means, threshold))
    low, high = np.quantile(np.repeat(stars, times), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], method="nearest")
    return float(low), float(high)


def resamples(count: int, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The different ones among so many draws, with replacement, of `count` replicates, (n, count), and how often each
    was drawn, (n,)."""
    draws = np.random.default_rng(0).integers(count, size=(number, count))
    return np.unique(np.sort(draws, axis=1), axis=0, return_counts=True)


def figure(table: pd.DataFrame, stars: pd.DataFrame) -> Figure:
    """Figure 15: gap against N, both logarithmic, a curve for each resolution, bars from least to largest trial; beside
    it N* against resolution and against parameters, where several curves cross the threshold."""
    crossed = stars[stars["n_star"].notna()]
    against = [key for key in ("resolution", "parameters") if crossed[key].nunique() > 1]
    picture = Figure(figsize=(5.5 + 3.4 * len(against), 4.2), layout="constrained")
    axes, *more = picture.subplots(1, 1 + len(against), width_ratios=[1.7, *(1 for _ in against)], squeeze=False).flat
    _draw_gaps(axes, table, stars)
    for panel, key in zip(more, against, strict=True):
        _draw_stars(panel, stars, key)
    return picture


def _draw_gaps(axes: Axes, table: pd.DataFrame, stars: pd.DataFrame) -> None:
    kind = Gap(stars["gap"].iloc[0])
    for i, curve in enumerate(stars["curve"]):
        group = table[table["curve"] == curve]
        gap, high = (group[key].clip(lower=FLOOR) for key in (kind.metric, "gap_max"))
        low = group["gap_min"].where(group["gap_min"] > FLOOR, gap)
        axes.errorbar(
            group["n_train"],
            gap,
            yerr=[gap - low, high - gap],
            color=_colour(i),
            marker=MARKERS[i % len(MARKERS)],
            markersize=5,
            capsize=2,
            label=style.plain(str(curve)),
        )
        if math.isfinite(n_star := stars["n_star"][i]):
            label = f"N* = {sentences.three_digits(n_star)}"
            axes.axvline(n_star, color=_colour(i), linestyle=":", linewidth=1.5, label=label)
    threshold = stars["threshold_db"].iloc[0]
    axes.axhline(threshold, color="0.5", linewidth=1, linestyle="--", label=f"{threshold:g} dB")
    style.against_n(axes, table["n_train"])
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set_ylabel(f"PSNR gap, train - test (dB),\naveraged over {kind.average}")
    axes.legend(frameon=False, fontsize=8)
    axes.grid(alpha=0.3)


def _draw_stars(axes: Axes, stars: pd.DataFrame, key: str) -> None:
    for i, star in stars.iterrows():
        bars = [[max(star["n_star"] - star["low"], 0)], [max(star["high"] - star["n_star"], 0)]]
        axes.errorbar(
            star[key],
            star["n_star"],
            yerr=np.nan_to_num(bars),
            color=_colour(int(str(i))),
            marker=MARKERS[int(str(i)) % len(MARKERS)],
            capsize=3,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis, form in ((axes.xaxis, EngFormatter(sep="")), (axes.yaxis, StrMethodFormatter("{x:,g}"))):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(form)
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("pixels a side" if key == "resolution" else "parameters")
    axes.set_ylabel(f"N* (gap below {stars['threshold_db'].iloc[0]:g} dB)")
    if key == "resolution":
        sides = sorted(stars[key].unique())
        axes.set_xticks(sides, [f"{side}" for side in sides])
        axes.minorticks_off()
    axes.grid(alpha=0.3)


def _colour(i: int) -> str:
    return style.COLOURS[i % len(style.COLOURS)]
