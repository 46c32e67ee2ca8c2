"""How does the error fall with the noise? PSNR curves, and their slope for weak noise (Figures 1, 4, 9, 11, 16).

Both axes in dB, MSE ∝ σ^(2s) is a line of slope s, here fitted by least squares over a range of input PSNR, by default
from 20 dB (σ = 0.1) to 34 dB, where Figure 4 ends, to the mean over subsets and seeds. A short training saturates: its
error does not fall below some level however weak the noise, and the range must end before. What the best denoiser would
reach, for images of d pixels:

    geometric C^α images: MSE ~ σ^(2α/(α+1)), slope α/(α+1) (§3.2), α the lesser regularity of contour and backgrounds;
    a manifold of dimension m: squared error σ² χ²_m in all, slope 1 and, since PSNR is averaged over images,
        intercept 10 log₁₀ d - 10 E[log₁₀ χ²_m] = 10 log₁₀ d - (10/ln 10)(ψ(m/2) + ln 2).

On a ray, m = 1, that is 5.5 dB above the intercept 10 log₁₀ d of the mean squared error (appendix C.2).

The slope α/(α+1) is that of σ → 0 and ever finer pixels. What it becomes at this side and in this range is the
*reference*: the oracle in the best bandlet basis (`gahb.denoising.bandlets`), its exact expected error (eq. 30) on
REFERENCE_IMAGES images of the same law. On a manifold it is the projection on the tangent space.

A curve is all trials that differ in nothing but subset and seed.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from scipy.special import digamma

from gahb.data.c_alpha import CAlpha
from gahb.data.dataset import Dataset
from gahb.data.intensity import unit
from gahb.data.manifold import Manifold
from gahb.data.source import Synthetic
from gahb.denoising.bandlets import oracle_error
from gahb.denoising.levels import INPUT_PSNR
from gahb.errors import UserError
from gahb.execution.analysis import AnalysisContext, AnalysisResult, rows_of
from gahb.figures import style
from gahb.grids import differing
from gahb.storage.local import opened
from gahb.tracking import lookup
from gahb.tracking.run import Run
from gahb.trial import Trial, type_of

Range = tuple[float, float]
"""Least and largest input PSNR in dB."""

WEAK_NOISE: Range = (20, 34)
"""Where a slope is fitted by default."""

REFERENCE_IMAGES = 16
"""Drawn for the slope of the reference, the first of the law's."""

BANDLETS, TANGENT = "oracle in the best bandlet basis", "projection on the tangent space"

LARGEST = 64 << 20
"""Bytes of the largest file that is read."""

CURVE = ("sigma", "input_psnr", "train_psnr", "test_psnr")
"""Columns of a trial's `psnr_curve.csv`, besides images_seen."""

SYMBOLS = {"n_train": "N", "alpha": "α"}


def run(context: AnalysisContext, *, sweep: str, fit: Range = WEAK_NOISE) -> AnalysisResult:
    """The result of `gahb-analyze curves`.

    Args:
        sweep: a sweep in the record.
        fit: where slopes are fitted.

    Raises:
        UserError: the range holds fewer than two noise levels.
    """
    runs = lookup.finished_trials(context.record, sweep)
    table = curves_table(runs, [context.record.artifacts(run.run_id, "psnr_curve.csv").parent for run in runs])
    slopes = slopes_table(table, runs, fit)
    rows = rows_of(slopes)
    known = [key for key in rows[0] if any(row[key] is not None for row in rows)]
    return AnalysisResult(
        name=f"curves of {sweep}",
        sweep=sweep,
        runs=runs,
        settings={"fit": fit},
        tables={"curves": table, "slopes": slopes},
        pictures={"curves": figure(table, slopes, fit)},
        data={"slopes": rows, "curves": rows_of(table)},
        shown=[[{key: row[key] for key in known} for row in rows]],
        lines=[f"slopes and intercepts (dB) are fitted {where(fit)}"],
    )


def curves_table(runs: Sequence[Run], artifacts: Sequence[Path]) -> pd.DataFrame:
    """A row for each trial and noise level: run_id, curve, subset, seed, sigma, input_psnr, train_psnr, test_psnr.

    Args:
        runs: finished trials.
        artifacts: the folder of each with `psnr_curve.csv`; of curves taken during training, the last one counts.
    """
    trials = [run.trial for run in runs]
    names = curve_names(trials)
    order = {run.run_id: _order(trial.flat()) for run, trial in zip(runs, trials, strict=True)}
    tables = []
    for run, trial, name, folder in zip(runs, trials, names, artifacts, strict=True):
        table = read_curve(folder / "psnr_curve.csv")
        tables.append(table.assign(run_id=run.run_id, curve=name, subset=trial.subset, seed=trial.seed))
    first = ["run_id", "curve", "subset", "seed"]
    tables.sort(key=lambda table: order[table["run_id"].iloc[0]])
    return pd.concat(tables, ignore_index=True)[[*first, *CURVE]]


def read_curve(file: Path) -> pd.DataFrame:
    """The last curve of a trial: sigma, input_psnr, train_psnr, test_psnr.

    Raises:
        UserError: the file holds none.
    """
    try:
        with opened(file, LARGEST) as stream:
            table = pd.read_csv(stream)
        if "images_seen" in table:
            table = table[table["images_seen"] == table["images_seen"].max()]
        return table[list(CURVE)].astype(float)
    except (OSError, ValueError, LookupError) as error:
        raise UserError(f"{file} holds no PSNR curve ({error})") from None


def curve_names(trials: Sequence[Trial]) -> list[str]:
    """What tells each trial's curve apart, "N = 1000" or "20×20, N = 1000, α = 2"; N if nothing does."""
    flats = [{**trial.flat(), "dataset": trial.dataset.name} for trial in trials]
    varying = [key for key in ("resolution", "n_train") if len({flat[key] for flat in flats}) > 1]
    keys = [*varying, *(key for key in differing(trials) if key != "seed")] or ["n_train"]
    return [", ".join(filter(None, (_written(key, flat.get(key)) for key in keys))) for flat in flats]


def slopes_table(table: pd.DataFrame, runs: Sequence[Run], fit: Range) -> pd.DataFrame:
    """A row a curve: slope and intercept on training and test images, fitted over a range, the optimum's (NaN where it
    is not known), and `reference` and `reference_slope`, see `reference`."""
    datasets = {run.run_id: run.trial.dataset for run in runs}
    rows = []
    for curve, group in table.groupby("curve", sort=False):
        means = group.groupby("input_psnr")[["train_psnr", "test_psnr"]].mean()
        dataset = datasets[group["run_id"].iloc[0]]
        optimal_slope, optimal_intercept = optimum(dataset)
        train, test = (line(means.index, means[key], fit) for key in means)
        rows.append(
            {
                "curve": curve,
                "trials": group["run_id"].nunique(),
                "train_slope": train[0],
                "test_slope": test[0],
                "optimal_slope": optimal_slope,
                "train_intercept": train[1],
                "test_intercept": test[1],
                "optimal_intercept": optimal_intercept,
                **reference(dataset, fit),
            }
        )
    return pd.DataFrame(rows)


def line(input_psnr: ArrayLike, output_psnr: ArrayLike, fit: Range) -> tuple[float, float]:
    """Slope and intercept in dB of output against input PSNR over a range.

    Raises:
        UserError: it holds fewer than two noise levels.
    """
    x, y = np.asarray(input_psnr, float), np.asarray(output_psnr, float)
    within = (x >= fit[0]) & (x <= fit[1])
    if within.sum() < 2:
        raise UserError(
            f"--fit {fit[0]:g} {fit[1]:g}: holds {within.sum()} of the noise levels, 0, 3, … 42 dB; needs 2"
        )
    slope, intercept = np.polyfit(x[within], y[within], 1)
    return float(slope), float(intercept)


def where(fit: Range) -> str:
    """The range in words."""
    return f"at {fit[0]:g} to {fit[1]:g} dB"


def optimum(dataset: Dataset) -> tuple[float, float]:
    """Slope and intercept in dB of the best denoiser of a data set; NaN where they are not known."""
    source = dataset.source
    if isinstance(source, CAlpha):
        alpha = min(source.alpha, source.background_alpha or source.alpha)
        return alpha / (alpha + 1), math.nan
    if isinstance(source, Manifold):
        mean_log = (digamma(source.dimension / 2) + math.log(2)) / math.log(10)
        return 1.0, 10 * (math.log10(dataset.resolution**2) - float(mean_log))
    return math.nan, math.nan


def reference(dataset: Dataset, fit: Range) -> dict[str, Any]:
    """`reference` and `reference_slope`: what α/(α+1) becomes at this side in this range; None where images are not
    drawn, or have lost their geometry."""
    if isinstance(dataset.source, Manifold):
        return {"reference": TANGENT, "reference_slope": 1.0}
    if dataset.shuffled or not isinstance(dataset.source, Synthetic):
        return {"reference": None, "reference_slope": None}
    levels = [level for level in INPUT_PSNR if fit[0] <= level <= fit[1]]
    slope, _ = line(levels, [reference_psnr(dataset, level) for level in levels], fit)
    return {"reference": BANDLETS, "reference_slope": slope}


@lru_cache(maxsize=4096)
def reference_psnr(dataset: Dataset, level: float) -> float:
    """Mean output PSNR in dB of the oracle in the best bandlet basis at an input PSNR, on a drawn set's first
    images."""
    images = _first_images(dataset)
    mse = oracle_error(images, 10 ** (-level / 20)) / images[0].numel()
    return float(-10 * mse.log10().mean())


@lru_cache(maxsize=4)
def _first_images(dataset: Dataset) -> torch.Tensor:
    """(REFERENCE_IMAGES, C, H, W) in [0, 1]."""
    assert isinstance(dataset.source, Synthetic)
    stored = torch.from_numpy(dataset.source.chunk(dataset.resolution, 0)[:REFERENCE_IMAGES])
    return unit(stored.reshape(len(stored), -1, *stored.shape[-2:]))


def figure(table: pd.DataFrame, slopes: pd.DataFrame, fit: Range = WEAK_NOISE) -> Figure:
    """Figure 1: output against input PSNR on training and on test images, a line a curve, and the identity; dashed,
    from where slopes are fitted on, the optimal slope, at the optimal height where that is known and else through the
    curve's first point there; in the legend the slopes on test images, the optimal one and the reference's."""
    picture = Figure(figsize=(9.5, 4.6), layout="constrained")
    both = picture.subplots(1, 2, sharey=True)
    for axes, key, title in zip(both, ("train_psnr", "test_psnr"), ("Train", "Test"), strict=True):
        levels = sorted(table["input_psnr"].unique())
        axes.plot(levels, levels, color="0.6", linestyle=":", label="identity")
        for i, (_, row) in enumerate(slopes.iterrows()):
            means = table[table["curve"] == row["curve"]].groupby("input_psnr")[key].mean()
            axes.plot(
                means.index,
                means,
                color=style.COLOURS[i % len(style.COLOURS)],
                linestyle=("-", "--", "-.")[i // len(style.COLOURS) % 3],
                marker="osD^v<>p"[i % 8],
                markersize=3,
                label=_label(row),
            )
        for i, (_, row) in enumerate(slopes.iterrows()):
            means = table[table["curve"] == row["curve"]].groupby("input_psnr")[key].mean()
            ends = np.array([level for level in means.index if fit[0] <= level <= fit[1]])[[0, -1]]
            height = row["optimal_intercept"]
            if not math.isfinite(height):
                height = means[ends[0]] - row["optimal_slope"] * ends[0]
            optimal = height + row["optimal_slope"] * ends
            axes.plot(ends, optimal, color=style.COLOURS[i % len(style.COLOURS)], linestyle="--", linewidth=1)
        axes.set_title(title)
        axes.set_xlabel("input PSNR (dB)")
        axes.grid(alpha=0.3)
    both[0].set_ylabel("output PSNR (dB)")
    handles, labels = both[0].get_legend_handles_labels()
    title = f"slope on test images\n{where(fit)}"
    picture.legend(
        handles, labels, loc="outside right center", frameon=False, fontsize=8, title=title, title_fontsize=8
    )
    return picture


def _order(flat: dict[str, Any]) -> tuple[float, ...]:
    return flat["resolution"], flat["n_train"], flat.get("alpha", 0.0)


def _label(row: pd.Series) -> str:
    beside = {"optimum": row["optimal_slope"], "reference": row["reference_slope"]}
    known = ", ".join(f"{name} {slope:.2f}" for name, slope in beside.items() if pd.notna(slope))
    return f"{style.plain(row['curve'])}: {row['test_slope']:.2f}" + (f" ({known})" if known else "")


def _written(key: str, value: Any) -> str:
    """A setting in words; nothing for one that the trial does not have. A switch that is off may be missing."""
    if type_of(key) is bool:
        return key if value else f"not {key}"
    if value is None:
        return ""
    if key == "resolution":
        return f"{value}×{value}"
    if isinstance(value, str):
        return value
    return f"{SYMBOLS.get(key, key)} = {value:g}" if isinstance(value, float) else f"{SYMBOLS.get(key, key)} = {value}"
