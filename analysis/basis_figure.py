"""The picture of adaptive bases."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import NullFormatter
from torch import Tensor

from gahb.figures import style

from .adaptive_basis import SIGMAS, Basis

COLUMNS = 5
"""Vectors beside each other."""


def figure(bases: Sequence[Basis]) -> Figure:
    """Figure 3, or 5 where a tangent space is known, for each basis below the other, as in Figures 16, 17 and 21: the
    image clean, noisy and denoised, the decay of λ_k and coefficients, the effective dimension against σ, and basis
    vectors, with tangent vectors above them."""
    rows = [len(grid) for grid in map(_vector_grid, bases)]
    heights = [max(5.2, 1.35 * count) for count in rows]
    picture = Figure(figsize=(13, sum(heights)), layout="constrained")
    for part, basis in zip(
        picture.subfigures(len(bases), 1, height_ratios=heights, squeeze=False).flat, bases, strict=True
    ):
        _draw(part, basis)
    return picture


def _vector_grid(basis: Basis) -> list[list[tuple[str, Tensor]]]:
    """Rows of titles and vectors: tangent vectors, then basis vectors."""
    values = basis.table["eigenvalue"]
    groups = [
        [(f"tangent {i}", tangent) for i, tangent in enumerate(basis.tangents)],
        [(f"λ$_{{{k}}}$ = {values[k]:.3f}", vector) for k, vector in basis.vectors.items()],
    ]
    return [group[start : start + COLUMNS] for group in groups for start in range(0, len(group), COLUMNS)]


def _draw(part: SubFigure, basis: Basis) -> None:
    left, right = part.subfigures(1, 2, width_ratios=(7, 6), squeeze=False).flat
    top, bottom = left.subfigures(2, 1, height_ratios=(1, 1.6), squeeze=False).flat
    images = {"clean": basis.clean, f"noisy, σ = {basis.sigma:g}": basis.noisy, "denoised": basis.denoised}
    for axes, (label, image) in zip(top.subplots(1, 3), images.items(), strict=True):
        style.show_image(axes, image)
        axes.set_title(label, fontsize=9)
        axes.axis("off")
    decay, dimension = bottom.subplots(1, 2)
    draw_decay(decay, basis.table)
    draw_dimensions(dimension, basis.dimensions)
    rows = _vector_grid(basis)
    grid = right.subplots(len(rows), COLUMNS, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for row, line in zip(rows, grid, strict=True):
        for (title, vector), axes in zip(row, line, strict=False):
            style.show_image(axes, centred(vector))
            axes.set_title(title, fontsize=8)
    part.suptitle(style.plain(basis.model.name), fontsize=10)


def centred(vector: Tensor) -> Tensor:
    """A vector (C, H, W) as an image: zero a medium gray, its largest numbers black or white, or a full colour: one in
    200, lest a single pixel hide the rest."""
    return (1 + vector / vector.abs().flatten().quantile(0.995)) / 2


def draw_decay(axes: Axes, table: pd.DataFrame) -> None:
    """λ_k, singular values and |<x, e_k>| against k, the last with an axis of their own."""
    other = axes.twinx()
    other.plot(table["k"], table["coefficient"], ".", color=style.COLOURS[0], markersize=4, rasterized=True)
    other.set_ylabel("|⟨x, e$_k$⟩|", color=style.COLOURS[0])
    other.set_ylim(bottom=0)
    if "singular_value" in table:
        axes.plot(
            table["k"], table["singular_value"], "--", color=style.COLOURS[7], linewidth=1, label="singular values of J"
        )
        axes.legend(frameon=False, fontsize=8)
    axes.plot(table["k"], table["eigenvalue"], color=style.COLOURS[1])
    axes.set_ylabel("λ$_k$", color=style.COLOURS[1])
    axes.set_xlabel("k")
    axes.set_zorder(other.get_zorder() + 1)
    axes.patch.set_visible(False)
    axes.grid(alpha=0.3)


def draw_dimensions(axes: Axes, table: pd.DataFrame) -> None:
    """Effective dimension, squared error and SURE in units of σ² against σ; for the optimum they agree in the mean."""
    lines = {"effective_dimension": "o-", "error": "s--", "sure": "^:"}
    labels = {"effective_dimension": "tr J", "error": "‖x - f(y)‖²/σ²", "sure": "SURE/σ²"}
    for i, (column, line) in enumerate(lines.items()):
        axes.plot(table["sigma"], table[column], line, color=style.COLOURS[i], markersize=4, label=labels[column])
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(SIGMAS, [f"{sigma:g}" for sigma in SIGMAS])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("σ")
    axes.set_ylabel("effective dimension")
    axes.legend(frameon=False, fontsize=8)
    axes.grid(alpha=0.3)
