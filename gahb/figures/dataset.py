"""What a prepared data set looks like: some of its images, and how close the subsets A and B come (Figure 6).

    c_i = max_j cos(a_i, b_j),    a_i in A, b_j in B, each pooled to 20×20 and without its mean,

the cosine by which near-duplicates are told. Pixels that were shuffled are put back first.
"""

from dataclasses import replace

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from gahb.data.cropping import thumbnail
from gahb.data.dataset import Prepared
from gahb.data.intensity import unit
from gahb.data.pixel_shuffling import unshuffle
from gahb.data.similarity import BLOCK, closest
from gahb.data.splits import SUBSETS, Split
from gahb.figures.style import COLOURS, show_rows

SHEET = 96
COLUMNS = 12
"""Images on a contact sheet, and in each of its rows."""


def shown(prepared: Prepared, rows: NDArray[np.int64]) -> torch.Tensor:
    """Images of the given rows, (n, C, side, side) in [0, 1], with shuffled pixels put back."""
    images = prepared.images[rows]
    images = unshuffle(images) if prepared.manifest["recipe"].get("shuffled") else images
    return unit(torch.from_numpy(images.reshape(len(rows), -1, *images.shape[-2:])))


def closest_pairs(prepared: Prepared, split: Split) -> NDArray[np.float32]:
    """For each image of A the cosine c_i to the closest image of B, whichever of the two the split names: (N,)."""
    a, b = (_thumbnails(prepared, replace(split, subset=name).rows(prepared.groups)) for name in SUBSETS)
    return torch.cat([closest(block, b, centred=True)[0] for block in a.split(BLOCK)]).numpy()


def _thumbnails(prepared: Prepared, rows: NDArray[np.int64]) -> torch.Tensor:
    return torch.from_numpy(np.stack([thumbnail(image.numpy()) for image in shown(prepared, rows).mean(dim=1)]))


def contact_sheet(images: torch.Tensor) -> Figure:
    """The first SHEET of images (n, C, side, side) in [0, 1], each row labelled with its first image's number."""
    images = images[:SHEET]
    rows = -(-len(images) // COLUMNS)
    page = torch.ones(rows * COLUMNS, *images.shape[1:])
    page[: len(images)] = images
    figure = Figure(figsize=(0.8 * COLUMNS, 0.8 * rows), layout="constrained")
    show_rows(figure.subplots(), page.split(COLUMNS), [str(row * COLUMNS) for row in range(rows)])
    return figure


def closest_pairs_histogram(cosines: NDArray[np.float32], threshold: float) -> Figure:
    """Histogram of the cosines of closest pairs, with the threshold above which images count as duplicates."""
    figure = Figure(figsize=(4.5, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.hist(cosines, bins=50, range=(min(0, float(cosines.min())), 1), color=COLOURS[0])
    if threshold < 1:
        axes.axvline(threshold, color="0.3", linestyle=":", label=f"duplicates beyond {threshold:g}")
        axes.legend(frameon=False)
    axes.set_xlabel("cosine of an image of A to the closest of B")
    axes.set_ylabel("images")
    return figure
