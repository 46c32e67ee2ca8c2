"""Do two denoisers trained on disjoint subsets draw the same images from the same noise? (Figures 2, 10, 12)

Both models sample from common starting and injected noise (Algorithm 1). Compared are the cosine of the two images of
a pair, raw as in the paper and with means removed; its control, the mean cosine with the other model's images from
*other* noise; their difference, the excess, which is 0 for models that share nothing but the kind of image; and the
cosine of each sample to the closest image of its own and of the other training set, raw and with means removed.

The closest of more images is nearer by chance, and the more so in raw cosines, most of which images of one kind share.
How near that is, `closest_other` tells: the model has not seen those images.

The swap gap measures the same transition on the denoisers themselves,

    [PSNR of A on A + B on B - A on B - B on A] / 2,    averaged over σ in [0, 1] or input PSNR as the PSNR gap is,

where the difficulty of the images cancels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
import safetensors.numpy
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from gahb.cli import say
from gahb.data import intensity
from gahb.data.intensity import unit
from gahb.data.similarity import closest, cosine, mismatched_cosine
from gahb.denoising import psnr
from gahb.denoising.sampler import Sampler
from gahb.denoising.sampling import Samples, sample
from gahb.errors import UserError
from gahb.execution.analysis import AnalysisContext, AnalysisResult
from gahb.figures import style
from gahb.storage.local import content_of
from gahb.tracking import lookup
from gahb.tracking.run import Run
from gahb.tracking.views import SIMILARITIES

from .models import Model, TrialModel, load

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

COLUMNS = (
    "cosine",
    "cosine_centered",
    "mismatched",
    "mismatched_centered",
    "excess",
    "closest_train",
    "closest_train_centered",
    "closest_other",
    "closest_other_centered",
)
"""Measures in the table of samples: raw cosines, like the paper's, and of images whose means are removed, `_centered`;
excess is of the latter."""

TABLE = ("sample", "converged", *COLUMNS, "closest_a", "closest_b", "steps_a", "steps_b")
"""The columns of that table."""

SHOWN = 8
"""Samples in the picture."""

LARGEST = 64 << 20
"""Bytes of the largest comparison that is read."""


def run(
    context: AnalysisContext, *, run1: str, run2: str, samples: int, seed: int, sampler: Sampler, force: bool
) -> AnalysisResult:
    """The result of `gahb-analyze pair`.

    Args:
        run1, run2: what names the two runs.
        samples: how many, at least 2.
        seed: of the sampling noise.
        sampler: the constants of the sampling.
        force: compare even models that `check_pair` refuses.
    """
    a, b = (load(context, lookup.finished_model(context.record, text)) for text in (run1, run2))
    check_pair(a, b, force=force)
    pair = compare(a, b, samples, seed, context.device, sampler)
    summary = pair.summary()
    say_diverged(pair)
    distributions = [
        {"measure": key, "mean": value["mean"], **{_quantile(q): x for q, x in value["quantiles"].items()}}
        for key, value in summary.items()
        if isinstance(value, dict) and np.isfinite(value["mean"])
    ]
    return AnalysisResult(
        name=f"{a.name} and {b.name}",
        runs=[a.run, b.run],
        settings={"samples": samples, "seed": seed, **asdict(sampler)},
        metrics=flat_metrics(summary),
        by_n=pair.by_n(),
        tables={"pair": pair.table},
        pictures={"pair": figure(pair)},
        arrays={"pair": pair.arrays()},
        data=summary,
        shown=[distributions],
        lines=[
            "swap gap, by which each is better on its own training images than on the other's: "
            f"{pair.swap_gap:.2f} dB averaged over σ, {pair.swap_gap_db:.2f} dB over input PSNR"
        ]
        if np.isfinite(pair.swap_gap)
        else [],
    )


def _quantile(name: str) -> str:
    return "median" if name == "0.5" else name


@dataclass(frozen=True)
class Pair:
    """The comparison of two models, which `arrays` and `of` take apart and put together.

    `table` has a row a sample and the columns TABLE: `converged` in both models, `closest_a` and `closest_b` the rows
    of the image of largest raw cosine within each model's own training images. What needs training images that are not
    known is NaN, and its row 0. `shown` are the four rows of Figure 2 for the first SHOWN samples
    that converged, each (n, 1, H, W) in [0, 1], white where training images are not known.
    """

    a: Run
    b: Run
    table: pd.DataFrame
    swap_gap: float
    swap_gap_db: float
    shown: Sequence[Tensor]

    def summary(self) -> dict[str, Any]:
        """mean, median and quantiles of each measure over the samples that converged in both models, and counts."""
        converged = self.table[self.table["converged"]]
        return {
            **{column: _distribution(converged[column]) for column in COLUMNS},
            "swap_gap": self.swap_gap,
            "swap_gap_db": self.swap_gap_db,
            "samples": len(self.table),
            "diverged": int((~self.table["converged"]).sum()),
        }

    def by_n(self) -> dict[str, dict[str, float]]:
        """Run id → what the MLflow UI shows of the pair against N: the means of SIMILARITIES that there are."""
        summary = self.summary()
        means = {key: summary[key]["mean"] for key in SIMILARITIES}
        finite = {key: mean for key, mean in means.items() if np.isfinite(mean)}
        return {run.run_id: finite for run in (self.a, self.b) if not run.imported}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All but the runs, by name."""
        shown = {f"shown_{i}": images.numpy() for i, images in enumerate(self.shown)}
        gaps = np.array([self.swap_gap, self.swap_gap_db])
        return {**{key: self.table[key].to_numpy() for key in TABLE}, **shown, "swap_gaps": gaps}

    @classmethod
    def of(cls, a: Run, b: Run, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The comparison of two runs from its arrays.

        Raises:
            KeyError: there is one missing.
            ValueError: these are none of a comparison.
        """
        table = pd.DataFrame({key: arrays[key] for key in TABLE})
        shown = [torch.from_numpy(arrays[f"shown_{i}"]) for i in range(len(ROW_LABELS))]
        if table["converged"].dtype != bool or any(images.ndim != 4 for images in shown):
            raise ValueError
        swap_gap, swap_gap_db = map(float, arrays["swap_gaps"])
        return cls(a, b, table, swap_gap, swap_gap_db, shown)


def check_pair(a: Model, b: Model, *, force: bool = False) -> None:
    """Raise UserError unless the two share data set and resolution and have no training image in common; with `force`,
    unless they share the resolution."""
    names = f"{a.name} and {b.name}"
    if a.resolution != b.resolution:
        sides = f"{a.resolution} and {b.resolution}"
        raise UserError(f"{names} have images of {sides} pixels a side; there is nothing to compare")
    if force:
        return
    hint = "--force compares them all the same"
    for model in (a, b):
        if not isinstance(model, TrialModel):
            raise UserError(f"{model.name} was imported and nothing is known of its training images; {hint}")
    assert isinstance(a, TrialModel) and isinstance(b, TrialModel)
    if a.card["data_hash"] != b.card["data_hash"]:
        sets = [model.trial.dataset.name for model in (a, b)]
        which = f"{sets[0]} and {sets[1]}" if sets[0] != sets[1] else f"{sets[0]} in two versions"
        raise UserError(f"{names} were trained on different data sets, {which}; {hint}")
    rows_a, rows_b = (m.rows for m in (a, b))
    common = len(np.intersect1d(rows_a, rows_b))
    if common:
        raise UserError(f"{names} were trained on {common} common images; {hint}")


def compare(a: Model, b: Model, count: int, seed: int, device: torch.device, sampler: Sampler | None = None) -> Pair:
    """Sample from both models with common noise and compare.

    Args:
        count: samples, at least 2.
        seed: of the sampling noise.
        sampler: the constants of the sampling.
    """
    drawn = draw(a, b, count, seed, device, sampler)
    images_a, images_b = drawn[0].images, drawn[1].images
    sets = a.train_images, b.train_images
    (close_a, row_a), (close_b, row_b) = _closest(images_a, sets[0]), _closest(images_b, sets[1])
    centred = cosine(images_a, images_b, centred=True)
    chance = mismatched_cosine(images_a, images_b, centred=True)
    table = pd.DataFrame(
        {
            "sample": range(count),
            "converged": drawn[0].converged & drawn[1].converged,
            "cosine": cosine(images_a, images_b, centred=False),
            "cosine_centered": centred,
            "mismatched": mismatched_cosine(images_a, images_b, centred=False),
            "mismatched_centered": chance,
            "excess": centred - chance,
            "closest_train": (close_a + close_b) / 2,
            "closest_train_centered": mean_closest(drawn, sets, centred=True),
            "closest_other": mean_closest(drawn, sets[::-1], centred=False),
            "closest_other_centered": mean_closest(drawn, sets[::-1], centred=True),
            "closest_a": row_a,
            "closest_b": row_b,
            "steps_a": drawn[0].steps,
            "steps_b": drawn[1].steps,
        }
    )
    chosen = np.flatnonzero(table["converged"])[:SHOWN]
    shown = [
        _images(a, table["closest_a"].to_numpy()[chosen]),
        images_a[chosen],
        images_b[chosen],
        _images(b, table["closest_b"].to_numpy()[chosen]),
    ]
    return Pair(a.run, b.run, table, *swap_gaps(a, b, device), shown)


def stored(context: AnalysisContext, analysis: Run, a: Run, b: Run) -> Pair | None:
    """The comparison that an analysis `pair` of the record has kept; None if it is not there, or damaged."""
    try:
        file = context.record.artifacts(analysis.run_id, "pair.safetensors")
        return Pair.of(a, b, safetensors.numpy.load(content_of(file, LARGEST)))
    except (UserError, OSError, KeyError, ValueError, TypeError, SafetensorError):
        return None


def draw(
    a: Model, b: Model, count: int, seed: int, device: torch.device, sampler: Sampler | None
) -> tuple[Samples, Samples]:
    """So many samples of both models from common noise."""
    mean = common_mean(a, b)
    of_a, of_b = (
        sample(model.denoiser, count, model.shape, mean=mean, seed=seed, device=device, sampler=sampler)
        for model in (a, b)
    )
    return of_a, of_b


def _images(model: Model, rows: np.ndarray[Any, Any]) -> Tensor:
    """Training images in [0, 1], white if they are not known."""
    if not len(model.train_images):
        return torch.ones(len(rows), 1, model.resolution, model.resolution)
    return unit(model.train_images, torch.from_numpy(rows))


def mean_closest(drawn: Sequence[Samples], sets: Sequence[Tensor], *, centred: bool) -> Tensor:
    """Largest cosine to an image of the set that each model is given, (n,), averaged over the models."""
    values = [_closest(samples.images, images, centred)[0] for samples, images in zip(drawn, sets, strict=True)]
    return torch.stack(values).mean(dim=0)


def _closest(samples: Tensor, images: Tensor, centred: bool = False) -> tuple[Tensor, Tensor]:
    """Largest cosine to an image and that image's row; NaN and 0 if there are none."""
    values, rows = closest(samples, images, centred=centred)
    return torch.where(values.isneginf(), torch.nan, values), rows


def common_mean(a: Model, b: Model) -> float:
    """The mean intensity around which the starting noise of both lies, in [0, 1]; 1/2 if no images are known."""
    known = [model.train_images[:512] for model in (a, b)]
    return intensity.mean(*known) if any(map(len, known)) else 0.5


def swap_gaps(a: Model, b: Model, device: torch.device) -> tuple[float, float]:
    """[A on A + B on B - A on B - B on A] / 2 in dB, averaged over σ in [0, 1] and over input PSNR; NaN if one's images
    are not known."""
    if not (isinstance(a, TrialModel) and isinstance(b, TrialModel)):
        return float("nan"), float("nan")
    count = min(a.trial.n_test, b.trial.n_test)

    def curve(model: TrialModel, images: Tensor) -> tuple[float, ...]:
        return psnr.mean_psnr(model.denoiser, images[:count].to(device), count)

    own = curve(a, a.train_images), curve(b, b.train_images)
    other = curve(a, b.train_images), curve(b, a.train_images)

    def gap(average: Callable[[tuple[float, ...]], float]) -> float:
        return (sum(map(average, own)) - sum(map(average, other))) / 2

    return gap(psnr.average_over_sigma), gap(psnr.average_over_decibels)


def figure(pair: Pair) -> Figure:
    """Figure 2: closest training images, samples of both models from the same noise, and histograms of cosines."""
    columns = len(pair.shown[0])
    picture = Figure(figsize=(2 + 0.8 * max(columns, 4), 6.2), layout="constrained")
    top, bottom = picture.subplots(2, 1, height_ratios=(3, 2))
    if columns:
        style.show_rows(top, pair.shown, ROW_LABELS)
    draw_histograms(bottom, pair.table)
    bottom.legend(frameon=False, fontsize=8)
    bottom.set_xlabel("cosine similarity")
    bottom.set_ylabel("samples")
    top.set_title(style.plain(f"{pair.a.name} and {pair.b.name}"), fontsize=10)
    return picture


ROW_LABELS = ("closest in A", "sample of A", "sample of B", "closest in B")


def draw_histograms(axes: Axes, table: pd.DataFrame) -> None:
    """The two histograms of Figure 2 on given axes."""
    converged = table[table["converged"]]
    two, own = converged["cosine"], converged["closest_train"].dropna()
    bins = np.linspace(min([0.0, *two, *own]), 1, 41).tolist()
    axes.hist(two, bins, color=style.COLOURS[0], alpha=0.7, label="samples of two denoisers")
    if len(own):
        axes.hist(own, bins, color=style.COLOURS[1], alpha=0.7, label="sample and closest training image")


def say_diverged(pair: Pair) -> None:
    """Tell of samples that diverged."""
    if lost := int((~pair.table["converged"]).sum()):
        say(f"{pair.a.name} and {pair.b.name}: {lost} of {len(pair.table)} samples diverged and are left out")


def flat_metrics(summary: Mapping[str, Any]) -> dict[str, float]:
    """A summary as MLflow metrics: the distributions by their means and medians, numbers as they are."""
    metrics: dict[str, float] = {}
    for key, value in summary.items():
        if isinstance(value, dict):
            metrics |= {f"{key}_mean": value["mean"], f"{key}_median": value["median"]}
        else:
            metrics[key] = float(value)
    return {key: value for key, value in metrics.items() if np.isfinite(value)}


def _distribution(values: pd.Series) -> dict[str, Any]:
    quantiles = {str(q): float(values.quantile(q)) for q in QUANTILES}
    return {"mean": float(values.mean()), "median": float(values.median()), "quantiles": quantiles}
