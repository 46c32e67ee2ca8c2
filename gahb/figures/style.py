"""The look that all figures share, each of them a function from a tidy table to a matplotlib Figure."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter
from numpy.typing import NDArray
from skimage.util import montage
from torch import Tensor

from gahb.text import printable

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
"""Okabe and Ito's palette, told apart by colour-blind readers too. A is the first, B the second."""


def plain(name: str) -> str:
    """A name as matplotlib shows it letter by letter, without formulas."""
    return printable(name).replace("$", r"\$")


def against_n(axes: Axes, sizes: Iterable[int], *, of: Literal["x", "y"] = "x") -> None:
    """An axis for training-set sizes N: logarithmic, with up to ten of them as ticks, in plain numbers."""
    axis = axes.xaxis if of == "x" else axes.yaxis
    axes.set(**{f"{of}scale": "log", f"{of}label": "training images N"})
    axis.set_major_locator(FixedLocator(sorted(set(sizes)), nbins=9))
    axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axis.set_minor_locator(NullLocator())


def show_image(axes: Axes, image: Tensor) -> None:
    """An image (C, H, W) in [0, 1], gray or in colour; what lies outside the range is cut off."""
    pixels = image.detach().clamp(0, 1).double().movedim(0, -1).squeeze(-1).cpu().numpy()
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def show_rows(axes: Axes, rows: Sequence[Tensor], labels: Sequence[str]) -> None:
    """Rows of equally many images (n, C, H, W) in [0, 1] as one picture, a label before each row."""
    tiles: NDArray[np.float64] = torch.cat(list(rows)).clamp(0, 1).double().movedim(1, -1).numpy()
    channels, side = tiles.shape[-1], tiles.shape[-2] + 1
    shape = (len(rows), len(rows[0]))
    picture = montage(tiles, grid_shape=shape, padding_width=1, fill=[1.0] * channels, channel_axis=-1)
    show_image(axes, torch.from_numpy(picture).movedim(-1, 0))
    axes.set_yticks([1 + side * (i + 0.5) for i in range(len(rows))], [plain(label) for label in labels])
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def save(figure: Figure, path: Path) -> None:
    """Write a figure at 160 dots per inch."""
    figure.savefig(path, dpi=160, bbox_inches="tight")
