"""Do two denoisers trained on disjoint subsets draw the same images from the same noise? (Figures 2, 10, 12)

Both models sample from common starting and injected noise (Algorithm 1). Compared are the cosine of the two images of
a pair, raw as in the paper and with means removed; its control, the mean cosine with the other model's images from
*other* noise; their difference, the excess, which is 0 for models that share nothing but the kind of image; and the
cosine of each sample to the closest image of its own and of the other training set.

The swap gap measures the same transition on the denoisers themselves,

    [PSNR of A on A + B on B - A on B - B on A] / 2,    averaged over σ in [0, 1] as the PSNR gap is,

where the difficulty of the images cancels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from gahb import evaluation, figures, weights
from gahb.data import subsets
from gahb.data.dataset import Prepared
from gahb.errors import UserError
from gahb.models.layers import Denoiser
from gahb.record import Record, Run
from gahb.sampling import Samples, sample
from gahb.similarity import closest, cosine, mismatched_cosine
from gahb.trial import Trial

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

COLUMNS = ("cosine", "cosine_centered", "mismatched", "mismatched_centered", "excess", "closest_train", "closest_other")
"""Measures in the table of samples. closest_* are raw cosines, like the paper's; the rest says which it is; excess is
of the mean-removed cosines."""


@dataclass(frozen=True)
class Model:
    """A finished trial with what a comparison needs of it."""

    run: Run
    trial: Trial
    card: dict[str, Any]
    denoiser: Denoiser
    train_images: Tensor

    @classmethod
    def load(cls, record: Record, run: Run, storage: Path, device: torch.device) -> "Model":
        """The model of a finished trial.

        Raises:
            UserError: its images are not in the storage, or are no longer those it was trained on.
        """
        denoiser, card = weights.read(record.artifacts(run.run_id), device)
        trial = Trial.of(card["trial"])
        images = subsets.training_images(Prepared.open(storage, card["data_hash"]), trial)
        if subsets.subset_hash(images) != card["subset_hash"]:
            raise UserError(
                f"the images of {run.name} in {storage} are not those it was trained on (their hash differs)"
            )
        return cls(run, trial, card, denoiser, images)


@dataclass(frozen=True)
class Imported:
    """A model of whose images nothing is known: `train_images` is (0, 1, H, W)."""

    run: Run
    card: dict[str, Any]
    denoiser: Denoiser
    train_images: Tensor

    @classmethod
    def load(cls, record: Record, run: Run, device: torch.device) -> "Imported":
        """The model of an imported checkpoint."""
        denoiser, card = weights.read(record.artifacts(run.run_id), device)
        return cls(run, card, denoiser, torch.empty(0, 1, card["resolution"], card["resolution"], dtype=torch.uint8))


def load(record: Record, run: Run, storage: Path, device: torch.device) -> Model | Imported:
    """The model of a finished run, whichever it is."""
    return Imported.load(record, run, device) if run.imported else Model.load(record, run, storage, device)


@dataclass(frozen=True)
class Pair:
    """The comparison of two models.

    `table` has a row a sample: `sample`, `converged` (in both models), COLUMNS, `closest_a`, `closest_b` (rows of the
    closest image within each model's own training images) and `steps_a`, `steps_b`. What needs training images that are
    not known is NaN, and its row 0.
    """

    a: Model | Imported
    b: Model | Imported
    samples_a: Samples
    samples_b: Samples
    table: pd.DataFrame
    swap_gap: float

    def summary(self) -> dict[str, Any]:
        """mean, median and quantiles of each measure over the samples that converged in both models, and counts."""
        converged = self.table[self.table["converged"]]
        return {
            **{column: _distribution(converged[column]) for column in COLUMNS},
            "swap_gap": self.swap_gap,
            "samples": len(self.table),
            "diverged": int((~self.table["converged"]).sum()),
        }


def check_pair(a: Model | Imported, b: Model | Imported, *, force: bool = False) -> None:
    """Raise UserError unless the two share data set and resolution and have no training image in common; with `force`,
    unless they share the resolution."""
    names = f"{a.run.name} and {b.run.name}"
    sides = [model.train_images.shape[-1] for model in (a, b)]
    if sides[0] != sides[1]:
        raise UserError(f"{names} have images of {sides[0]} and {sides[1]} pixels a side; there is nothing to compare")
    if force:
        return
    hint = "--force compares them all the same"
    for model in (a, b):
        if isinstance(model, Imported):
            raise UserError(f"{model.run.name} was imported and nothing is known of its training images; {hint}")
    assert isinstance(a, Model) and isinstance(b, Model)
    if a.card["data_hash"] != b.card["data_hash"]:
        sets = [model.trial.dataset.name for model in (a, b)]
        which = f"{sets[0]} and {sets[1]}" if sets[0] != sets[1] else f"{sets[0]} in two versions"
        raise UserError(f"{names} were trained on different data sets, {which}; {hint}")
    rows_a, rows_b = (subsets.rows(m.trial.subset, m.trial.n_train, m.trial.n_test) for m in (a, b))
    common = len(np.intersect1d(rows_a, rows_b))
    if common:
        raise UserError(f"{names} were trained on {common} common images; {hint}")


def compare(a: Model | Imported, b: Model | Imported, count: int, seed: int, device: torch.device) -> Pair:
    """Sample from both models with common noise and compare.

    Args:
        count: samples, at least 2.
        seed: of the sampling noise.
    """
    mean, resolution = common_mean(a, b), a.train_images.shape[-1]
    drawn = [sample(m.denoiser, count, resolution, mean=mean, seed=seed, device=device) for m in (a, b)]
    images_a, images_b = drawn[0].images, drawn[1].images
    close_a, row_a = _closest(images_a, a.train_images)
    close_b, row_b = _closest(images_b, b.train_images)
    other_a, _ = _closest(images_a, b.train_images)
    other_b, _ = _closest(images_b, a.train_images)
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
            "closest_other": (other_a + other_b) / 2,
            "closest_a": row_a,
            "closest_b": row_b,
            "steps_a": drawn[0].steps,
            "steps_b": drawn[1].steps,
        }
    )
    return Pair(a, b, drawn[0], drawn[1], table, swap_gap(a, b, device))


def _closest(samples: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """Largest raw cosine to an image and that image's row; NaN and 0 if there are none."""
    values, rows = closest(samples, images, centred=False)
    return torch.where(values.isneginf(), torch.nan, values), rows


def common_mean(a: Model | Imported, b: Model | Imported) -> float:
    """The mean intensity around which the starting noise of both lies, in [0, 1]; 1/2 if no images are known."""
    known = torch.cat([a.train_images[:512], b.train_images[:512]])
    return float(known.float().mean() / 255) if len(known) else 0.5


def swap_gap(a: Model | Imported, b: Model | Imported, device: torch.device) -> float:
    """[A on A + B on B - A on B - B on A] / 2 in dB, averaged over σ in [0, 1]; NaN if one's images are not known."""
    if not (isinstance(a, Model) and isinstance(b, Model)):
        return float("nan")
    count = min(a.trial.n_test, b.trial.n_test)

    def average_psnr(model: Model, images: Tensor) -> float:
        return evaluation.average_over_sigma(evaluation.mean_psnr(model.denoiser, images[:count].to(device), count))

    own = average_psnr(a, a.train_images) + average_psnr(b, b.train_images)
    other = average_psnr(a, b.train_images) + average_psnr(b, a.train_images)
    return (own - other) / 2


def figure(pair: Pair, shown: int = 8) -> Figure:
    """Figure 2: closest training images, samples of both models from the same noise, and histograms of cosines."""
    converged = np.flatnonzero(pair.table["converged"])[:shown]
    picture = Figure(figsize=(2 + 0.8 * max(len(converged), 4), 6.2), layout="constrained")
    top, bottom = picture.subplots(2, 1, height_ratios=(3, 2))
    if len(converged):
        figures.show_rows(top, image_rows(pair, converged), ROW_LABELS)
    draw_histograms(bottom, pair.table)
    bottom.legend(frameon=False, fontsize=8)
    bottom.set_xlabel("cosine similarity")
    bottom.set_ylabel("samples")
    name = f"{pair.a.run.name} and {pair.b.run.name}"
    top.set_title(name, fontsize=10)
    return picture


ROW_LABELS = ("closest in A", "sample of A", "sample of B", "closest in B")


def image_rows(pair: Pair, samples: np.ndarray[Any, Any]) -> list[Tensor]:
    """The four rows of Figure 2 for some samples, each (n, 1, H, W) in [0, 1]; white where training images are not
    known."""
    close_a, close_b = (torch.tensor(pair.table[column].to_numpy()[samples]) for column in ("closest_a", "closest_b"))
    drawn_a, drawn_b = pair.samples_a.images[samples], pair.samples_b.images[samples]
    return [
        pair.a.train_images[close_a].float() / 255 if len(pair.a.train_images) else torch.ones_like(drawn_a),
        drawn_a,
        drawn_b,
        pair.b.train_images[close_b].float() / 255 if len(pair.b.train_images) else torch.ones_like(drawn_b),
    ]


def draw_histograms(axes: Axes, table: pd.DataFrame) -> None:
    """The two histograms of Figure 2 on given axes."""
    converged = table[table["converged"]]
    two, own = converged["cosine"], converged["closest_train"].dropna()
    bins = np.linspace(min([0.0, *two, *own]), 1, 41).tolist()
    axes.hist(two, bins, color=figures.COLOURS[0], alpha=0.7, label="samples of two denoisers")
    if len(own):
        axes.hist(own, bins, color=figures.COLOURS[1], alpha=0.7, label="sample and closest training image")


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
