"""Are a model's samples put together from patches of its training images? (Figure 10 at N = 100)

Of each pair of a sweep, models trained on disjoint subsets, samples are drawn as for `pairs` and cut into patches that
do not overlap. Of every patch is measured its largest cosine (means removed, see `gahb.data.patches`) to the patches of
the training images

    aligned     at the same position, in all of them,
    anywhere    at any position of the first so many of them, or where it is aligned,

and, for comparison, of the whole sample to the closest training image. The best of many patches is near by chance. How
near, is measured on the other model's training images, as many, which this one has not seen: `_other`. The difference,
`_excess`, is 0 for samples that owe the training images nothing but the kind of image.

A copy has a large excess in all three, and its aligned patches have one source: `one_source`, the largest share of a
sample's patches whose closest aligned patches come from one image. A collage keeps the excess of its patches while that
of the whole image falls, and has several sources.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional

from gahb.data import intensity
from gahb.data.patches import CONTRAST, aligned, anywhere
from gahb.data.similarity import closest
from gahb.denoising.sampler import Sampler
from gahb.errors import UserError
from gahb.execution.analysis import AnalysisContext, AnalysisResult, rows_of
from gahb.figures import style
from gahb.grids import curve_names, differing, pair_name
from gahb.tracking import lookup
from gahb.tracking.run import Run

from .models import Model, load
from .pair import check_pair, draw
from .pairs import find_pairs, title

LEAST_PATCH = 3
PATCHES_A_SIDE = 4
"""The default patch is so large a part of a side."""

SHOWN = 3
"""Samples of each pair in the picture."""

KINDS = ("whole", "aligned", "anywhere")

COLUMNS = (*(f"{kind}{ending}" for kind in KINDS for ending in ("", "_other", "_excess")), "one_source", "compared")
"""Measures of a sample. `compared` is the share of its patches that have contrast enough."""


@dataclass(frozen=True)
class Settings:
    """What is drawn and how it is compared.

    Args:
        samples: of each model, at least 2.
        seed: of the sampling noise.
        patch: side of a patch in pixels; None for a quarter of the image's side, at least LEAST_PATCH.
        searched: training images that are searched at every position.
        sampler: the constants of the sampling.
    """

    samples: int
    seed: int
    patch: int | None
    searched: int
    sampler: Sampler

    def patch_of(self, side: int) -> int:
        """The side of a patch of images of that side.

        Raises:
            UserError: it is larger.
        """
        patch = self.patch or max(LEAST_PATCH, side // PATCHES_A_SIDE)
        if patch > side:
            raise UserError(f"--patch {patch}: there are images of {side} pixels a side")
        return patch


@dataclass(frozen=True)
class Originality:
    """The samples of a pair. `table` has a row a sample: `sample`, `converged` (in both models) and COLUMNS, averaged
    over the models. `shown` are samples of A, what their closest aligned patches make, and their closest training
    images, each (n, C, H, W) with n ≤ SHOWN."""

    a: Run
    b: Run
    table: pd.DataFrame
    shown: Sequence[Tensor]


def run(context: AnalysisContext, *, sweep: str, settings: Settings) -> AnalysisResult:
    """The result of `gahb-analyze originality`; each pair is a Ray task."""
    found = find_pairs(lookup.finished_trials(context.record, sweep))
    for a, _ in found:
        settings.patch_of(a.flat["resolution"])
    names = [f"{a.name} and {b.name}" for a, b in found]
    pairs = context.map_on_cluster(_compare, [(a, b, settings) for a, b in found], names)
    table = pairs_table(pairs, settings)
    per_sample = pd.concat([one.table.assign(pair=name) for one, name in zip(pairs, table["pair"], strict=True)])
    rows = rows_of(table)
    own = {key: getattr(settings, key) for key in ("samples", "seed", "patch", "searched")}
    return AnalysisResult(
        name=f"originality of {sweep}",
        sweep=sweep,
        runs=[run for runs in found for run in runs],
        settings={**own, **asdict(settings.sampler)},
        tables={"originality": table, "samples": per_sample},
        pictures={"originality": figure(pairs, table)},
        data={"originality": rows},
        shown=[rows],
    )


def _compare(context: AnalysisContext, work: tuple[Run, Run, Settings]) -> Originality:
    run_a, run_b, settings = work
    a, b = load(context, run_a), load(context, run_b)
    check_pair(a, b)
    return compare(a, b, settings, context.device)


def compare(a: Model, b: Model, settings: Settings, device: torch.device) -> Originality:
    """Sample from both models with common noise and hold the patches against those of both training sets."""
    of_a, of_b = draw(a, b, settings.samples, settings.seed, device, settings.sampler)
    patch = settings.patch_of(a.resolution)
    images_a, images_b = a.train_images, b.train_images
    table_a, sources = _measures(of_a.images, images_a, images_b, patch, settings.searched, device)
    table_b, _ = _measures(of_b.images, images_b, images_a, patch, settings.searched, device)
    converged = of_a.converged & of_b.converged
    table = pd.DataFrame({"sample": range(settings.samples), "converged": converged}).join((table_a + table_b) / 2)
    chosen = converged.nonzero()[:SHOWN, 0]
    drawn = of_a.images[chosen]
    whole = intensity.unit(images_a, closest(drawn, images_a, centred=True)[1])
    made = mosaic(drawn, images_a, sources[chosen], patch)
    height, width = made.shape[2:]
    return Originality(a.run, b.run, table, [drawn[..., :height, :width], made, whole[..., :height, :width]])


def _measures(
    samples: Tensor, own: Tensor, other: Tensor, patch: int, searched: int, device: torch.device
) -> tuple[pd.DataFrame, Tensor]:
    """COLUMNS of one model's samples (n, C, H, W), and the rows of the images that their closest aligned patches
    are of, (n, k).

    Args:
        own: the model's training images.
        other: as many that it has not seen.
    """
    on_device = samples.to(device)
    found = [aligned(on_device, images, patch) for images in (own, other)]
    columns: dict[str, Tensor] = {}
    for ending, images, (here, _) in zip(("", "_other"), (own, other), found, strict=True):
        there = torch.maximum(here, anywhere(on_device, images[:searched], patch))
        columns[f"whole{ending}"] = closest(samples, images, centred=True)[0]
        columns[f"aligned{ending}"] = here.nanmean(dim=1).cpu()
        columns[f"anywhere{ending}"] = there.nanmean(dim=1).cpu()
    for kind in KINDS:
        columns[f"{kind}_excess"] = columns[kind] - columns[f"{kind}_other"]
    cosines, sources = (part.cpu() for part in found[0])
    compared = ~cosines.isnan()
    shares = [_largest_share(rows[known]) for rows, known in zip(sources, compared, strict=True)]
    columns |= {"one_source": torch.tensor(shares), "compared": compared.float().mean(dim=1)}
    return pd.DataFrame({column: columns[column].numpy() for column in COLUMNS}), sources


def _largest_share(rows: Tensor) -> float:
    """The share of the most frequent of some numbers; NaN if there are none."""
    return float(rows.unique(return_counts=True)[1].max()) / len(rows) if len(rows) else float("nan")


def mosaic(samples: Tensor, images: Tensor, sources: Tensor, patch: int) -> Tensor:
    """Samples (n, C, H, W) with the patches of images in their place, each with the mean and contrast of the sample's.

    Args:
        samples: in [0, 1].
        images: stored, (N, C, H, W).
        sources: the row of the image from which each patch is taken, (n, k).
        patch: its side.
    """
    cut = functional.unfold(samples, patch, stride=patch)
    count, size, positions = cut.shape
    theirs = functional.unfold(intensity.unit(images, sources.flatten()), patch, stride=patch)
    theirs = theirs.view(count, positions, size, positions).diagonal(dim1=1, dim2=3)
    spread, their_spread = (x.std(dim=1, correction=0, keepdim=True) for x in (cut, theirs))
    there = (spread >= CONTRAST) & (their_spread >= CONTRAST)
    scaled = (theirs - theirs.mean(dim=1, keepdim=True)) * torch.where(there, spread / their_spread, 0)
    height, width = (side // patch * patch for side in samples.shape[2:])
    return functional.fold(cut.mean(dim=1, keepdim=True) + scaled, (height, width), patch, stride=patch)


def pairs_table(pairs: Sequence[Originality], settings: Settings) -> pd.DataFrame:
    """A row a pair: its name, curve, resolution, n_train, patch, `searched` (how many images), COLUMNS averaged over
    the samples that converged, and how many diverged."""
    trials = [pair.a.trial for pair in pairs]
    keys = differing(trials)
    rows = []
    for pair, trial, curve in zip(pairs, trials, curve_names(trials), strict=True):
        converged = pair.table[pair.table["converged"]]
        rows.append(
            {
                "pair": pair_name(trial, keys),
                "curve": curve,
                "resolution": trial.dataset.resolution,
                "n_train": trial.n_train,
                "patch": settings.patch_of(trial.dataset.resolution),
                "searched": min(trial.n_train, settings.searched),
                **converged[list(COLUMNS)].mean().to_dict(),
                "diverged": len(pair.table) - len(converged),
            }
        )
    return pd.DataFrame(rows)


def figure(pairs: Sequence[Originality], table: pd.DataFrame) -> Figure:
    """A column a pair: samples, what their closest aligned patches make, and their closest training images; then
    similarities to the model's own training images and to the other's against N, and the excess."""
    picture = Figure(figsize=(1.2 + 1.9 * max(len(pairs), 4), 6), layout="constrained")
    grid = picture.add_gridspec(2, len(pairs), height_ratios=(2, 2.4))
    for column, pair in enumerate(pairs):
        axes = picture.add_subplot(grid[0, column])
        if len(pair.shown[0]):
            style.show_rows(axes, pair.shown, ("sample", "closest patches", "closest image"))
        if column:
            axes.set_yticks([])
        axes.set_title(title(pair.a), fontsize=9)
    below = picture.add_subfigure(grid[1, :])
    left, right = below.subplots(1, 2, sharex=True)
    _draw_curves(left, right, table)
    return picture


def _draw_curves(left: Axes, right: Axes, table: pd.DataFrame) -> None:
    labels = {"whole": "whole image", "aligned": "patches, same position", "anywhere": "patches, any position"}
    curves = list(dict.fromkeys(table["curve"]))
    for i, curve in enumerate(curves):
        means = table[table["curve"] == curve].groupby("n_train").mean(numeric_only=True)
        alpha = 1 - 0.6 * i / len(curves)
        of_curve = f", {style.plain(curve)}" if len(curves) > 1 else ""
        for kind, colour, marker in zip(KINDS, style.COLOURS, "o^s", strict=False):
            look: dict[str, Any] = {"color": colour, "marker": marker, "alpha": alpha}
            left.plot(means.index, means[kind], label=labels[kind] + of_curve, **look)
            left.plot(means.index, means[f"{kind}_other"], linestyle=":", **look)
            right.plot(means.index, means[f"{kind}_excess"], label=labels[kind] + of_curve, **look)
        right.plot(
            means.index, means["one_source"], "k--", alpha=alpha, label="share of patches from one image" + of_curve
        )
    left.plot([], [], "k:", label="to the other set's images")
    left.set_ylabel("cosine similarity (means removed)")
    right.set_ylabel("excess over the other set's images")
    for axes in (left, right):
        style.against_n(axes, table["n_train"])
        axes.legend(frameon=False, fontsize=7)
        axes.grid(alpha=0.3)
