"""Does a model draw its training images? Against N, and against the length of the training.

A sample is memorised if it is much closer to one training image than to the next (ratio test):

    d₁/d₂ < 1/3,    d₁ ≤ d₂ the Euclidean distances to the closest and second closest training image.

The factor 1/3 is that of Yoon et al. (2023), "Diffusion probabilistic models generalize when they fail to memorize",
and of Bonnaire et al. (2025), "Why diffusion models don't memorize", whose times τ_gen and τ_mem are the model of those
below. A copy of an image that has a near-duplicate in the training set is close to both, and does not count.
Photographs lose their near-duplicates (`duplicates`); drawn sets of few parameters, such as disks, are full of them,
and there the fraction is too low.

With the weights that a trial keeps on the way, the memorised fraction becomes a function of images seen. τ_gen is the
number of images after which the held-out PSNR first comes within 0.5 dB of its best, τ_mem the number after which the
memorised fraction first exceeds one half. N = 1 has no second image, so its trials are left out.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from numpy.typing import NDArray
from scipy.stats import binomtest
from torch import Tensor

from gahb.data import intensity
from gahb.data.dataset import Prepared
from gahb.data.similarity import two_closest_distances
from gahb.denoising.sampler import Sampler
from gahb.denoising.sampling import Samples, sample
from gahb.errors import UserError
from gahb.execution.analysis import AnalysisContext, AnalysisResult, rows_of
from gahb.figures import style
from gahb.models.layers import Denoiser
from gahb.tracking.run import Run
from gahb.training import weights
from gahb.trial import Trial

from .underway import trials_of

RATIO = 1 / 3
CONFIDENCE = 0.95
GENERALISED_DB = 0.5
MEMORISED_FRACTION = 0.5


def run(context: AnalysisContext, *, sweep: str, samples: int, seed: int, sampler: Sampler) -> AnalysisResult:
    """The result of `gahb-analyze memorization`; each trial is a Ray task.

    Args:
        sweep: a sweep in the record.
        samples: of each model, at least 2.
        seed: of the sampling noise.
        sampler: the constants of the sampling.
    """
    trials = trials_of(context, sweep)
    runs = with_two_images(trials.finished)
    work = [(run, samples, seed, sampler) for run in runs]
    history = pd.concat(context.map_on_cluster(_history, work, [run.name for run in runs]), ignore_index=True)
    ends = times(history)
    if not ends["samples"].any():
        raise UserError(f"no sample of any trial of {sweep!r} converged; models trained for longer are needed")
    rows = rows_of(ends)
    return AnalysisResult(
        name=f"memorization of {sweep}",
        sweep=sweep,
        runs=runs,
        settings={"samples": samples, "seed": seed, **asdict(sampler)},
        tables={"memorization": ends, "history": history},
        pictures={"memorization": figure(history, ends)},
        data={"memorization": rows, "unfinished": trials.rows},
        shown=[rows],
        lines=trials.lines,
    )


def _history(context: AnalysisContext, work: tuple[Run, int, int, Sampler]) -> pd.DataFrame:
    return history_table(context, *work)


def memorised(
    denoiser: Denoiser,
    train_images: Tensor,
    count: int,
    seed: int,
    device: torch.device,
    sampler: Sampler | None = None,
) -> NDArray[np.bool_]:
    """Whether each of the samples that converged passes the ratio test: (≤ count,)."""
    mean = intensity.mean(train_images[:512])
    drawn = sample(denoiser, count, train_images.shape[1:], mean=mean, seed=seed, device=device, sampler=sampler)
    return copies(drawn, train_images)


def copies(drawn: Samples, train_images: Tensor) -> NDArray[np.bool_]:
    """Whether each of the samples that converged passes the ratio test: (≤ n,)."""
    distances = two_closest_distances(drawn.images[drawn.converged], train_images)
    return (distances[:, 0] < RATIO * distances[:, 1]).numpy()


def fraction_interval(outcomes: NDArray[np.bool_]) -> tuple[float, float]:
    """Wilson's 95 % interval of the probability of which n outcomes are draws; NaN for none."""
    if not len(outcomes):
        return math.nan, math.nan
    ends = binomtest(int(outcomes.sum()), len(outcomes)).proportion_ci(CONFIDENCE, method="wilson")
    return float(ends.low), float(ends.high)


def history_table(context: AnalysisContext, run: Run, count: int, seed: int, sampler: Sampler) -> pd.DataFrame:
    """A trial at each of its evaluations: run_id, name, n_train, images_seen, samples (how many converged), memorised
    (their fraction), low, high (its interval), train_psnr and test_psnr in dB."""
    folder = context.record.artifacts(run.run_id)
    card = weights.read_card(folder)
    trial = Trial.of(card["trial"], card.get("plugins", ()))
    images = trial.split.training_images(Prepared.open(context.storage, card["data_hash"]))
    psnr = {key: dict(context.record.history(run.run_id, key)) for key in ("train_psnr", "test_psnr")}
    rows = []
    for images_seen, denoiser in weights.read_weight_history(folder, context.device):
        outcomes = memorised(denoiser, images, count, seed, context.device, sampler)
        low, high = fraction_interval(outcomes)
        rows.append(
            {
                "run_id": run.run_id,
                "name": run.name,
                "n_train": trial.n_train,
                "images_seen": images_seen,
                "samples": len(outcomes),
                "memorised": float(outcomes.mean()) if len(outcomes) else math.nan,
                "low": low,
                "high": high,
                **{key: _at(images_seen, values, key, run) for key, values in psnr.items()},
            }
        )
    return pd.DataFrame(rows)


def _at(images_seen: int, values: dict[int, float], key: str, run: Run) -> float:
    if not math.isfinite(value := values.get(images_seen, math.nan)):
        raise UserError(f"the record has no {key} of {run.name} ({run.run_id[:8]}) at {images_seen} images")
    return value


def with_two_images(runs: Sequence[Run]) -> list[Run]:
    """The trials with N ≥ 2.

    Raises:
        UserError: there is none.
    """
    chosen = [run for run in runs if run.flat["n_train"] >= 2]
    if not chosen:
        raise UserError(
            "the ratio test needs a second training image, and every finished trial of this sweep has N = 1"
        )
    return chosen


def times(history: pd.DataFrame) -> pd.DataFrame:
    """A row a trial: name, n_train, the memorised fraction at the end with its interval, tau_gen and tau_mem in images
    seen (NaN where the fraction never exceeds one half)."""
    rows = []
    for (_, name, n_train), trial in history.groupby(["run_id", "name", "n_train"], sort=False):
        last = trial.iloc[-1]
        good = trial.loc[trial["test_psnr"] >= trial["test_psnr"].max() - GENERALISED_DB, "images_seen"]
        bad = trial.loc[trial["memorised"] > MEMORISED_FRACTION, "images_seen"]
        rows.append(
            {
                "name": name,
                "n_train": n_train,
                "samples": last["samples"],
                "memorised": last["memorised"],
                "low": last["low"],
                "high": last["high"],
                "tau_gen": good.iloc[0],
                "tau_mem": bad.iloc[0] if len(bad) else math.nan,
            }
        )
    return pd.DataFrame(rows)


def figure(history: pd.DataFrame, ends: pd.DataFrame) -> Figure:
    """Left, the memorised fraction against N at the end of training, with intervals; right, against images seen."""
    picture = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = picture.subplots(1, 2, sharey=True)
    left.errorbar(
        ends["n_train"],
        ends["memorised"],
        yerr=[ends["memorised"] - ends["low"], ends["high"] - ends["memorised"]],
        color=style.COLOURS[0],
        marker="o",
        linestyle="none",
        capsize=2,
    )
    style.against_n(left, ends["n_train"])
    left.set_ylabel("memorised fraction of samples")
    for i, (n_train, group) in enumerate(history.groupby("n_train")):
        mean = group.groupby("images_seen")["memorised"].mean()
        colour = style.COLOURS[i % len(style.COLOURS)]
        right.plot(mean.index, mean, color=colour, marker="osD^v<>p"[i % 8], markersize=4, label=f"N = {n_train:,}")
    right.set_xscale("log")
    right.xaxis.set_major_formatter(EngFormatter(sep=""))
    right.set_xlabel("images seen")
    right.legend(frameon=False, fontsize=8)
    for axes in (left, right):
        axes.set_ylim(-0.04, 1.04)
        axes.grid(alpha=0.3)
    return picture
