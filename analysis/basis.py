"""In which basis does a denoiser shrink a noisy image? (Figures 3–5 and 16–21, §3.2)

At y = x + σz, x a held-out image, f(y) = Σ_k λ_k <y, e_k> e_k with the eigenvalues and eigenvectors of the Jacobian's
symmetric part. Beside the shrinkage factors λ_k stand the coefficients |<x, e_k>|: where these decay quickly, few
basis vectors hold the image. At several σ, in units of σ², stand

    tr J,    ‖x - f(y)‖²/σ²,    2 tr J + ‖y - f(y)‖²/σ² - d,

the effective dimension, the squared error and its estimate without the clean image (SURE). For the optimal denoiser
all three have one mean over noise and images (eqs. 7 and 10): the effective dimension is the error in units of σ².

Where the data set is a manifold whose tangent space at x is known, of dimension m, the optimum for weak noise projects
on it; the principal angles between it and e_0 … e_{m-1} say how far the denoiser is from that. The picture has above
these the orthonormal basis of the tangent space that is closest to them (`jacobian.aligned`).

λ_k and e_k belong to the symmetric part of J; the singular values of J itself, which cannot fall below 0, stand beside.
Images whose pixels were shuffled, and their basis vectors, are shown with the pixels back in place (Figure 21).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import NullFormatter
from torch import Tensor

from gahb.data.dataset import Dataset
from gahb.data.intensity import unit
from gahb.data.manifold import Manifold
from gahb.data.pixel_shuffling import unshuffle
from gahb.denoising import jacobian, noise, psnr
from gahb.errors import UserError
from gahb.execution.analysis import AnalysisContext, AnalysisResult, rows_of
from gahb.figures import style
from gahb.tracking import lookup

from .models import Model, TrialModel, load, load_trial

EXACT = 1600
"""Numbers in an image (pixels, times channels) up to which the effective dimension is exact at the other noise levels
too."""

SIGMAS = (0.5, 0.2, 0.1, 0.05, 0.02)
"""Noise levels at which the effective dimension is measured, besides the one asked for."""

SHOWN = 20
"""Eigenvalues that are printed."""

MOST_VECTORS = 100
"""Eigenvectors in a picture."""


def run(
    context: AnalysisContext,
    *,
    runs: Sequence[str],
    image: int,
    sigma: float,
    top: int | None,
    vectors: str,
    images_of: str | None = None,
) -> AnalysisResult:
    """The result of `gahb-analyze basis`.

    Args:
        runs: what names the models' runs, each with a row of the picture.
        image: row among the held-out images.
        sigma: σ of the noise.
        top: see `analyse`.
        vectors: which eigenvectors are shown, see `numbers`.
        images_of: what names the trial whose held-out images are used; each model's own if left out.
    """
    shown = numbers(vectors)
    bases = [_of_run(context, run, image, sigma, top, shown, images_of) for run in runs]
    names = [basis.model.name for basis in bases]
    one = bases[0] if len(bases) == 1 else None
    stems = [stem for stem in ("basis", "dimensions", "angles") if any(stem in basis.tables for basis in bases)]
    return AnalysisResult(
        name=f"basis of {', '.join(names)}",
        runs=[basis.model.run for basis in bases],
        settings={
            "image": image,
            "images_of": images_of,
            "sigma": sigma,
            "top": top,
            "vectors": vectors,
            "estimated": any(basis.estimated for basis in bases),
        },
        metrics=one.metrics() if one else {},
        tables=one.tables if one else {stem: _together(bases, stem) for stem in stems},
        pictures={"basis": figure(bases)},
        data=one.data() if one else {"runs": [{"name": basis.model.name, **basis.data()} for basis in bases]},
        shown=[rows for basis in bases for rows in (rows_of(basis.table[:SHOWN]), rows_of(basis.dimensions))],
        lines=[line for basis in bases for line in basis.lines()],
    )


def _of_run(
    context: AnalysisContext,
    run: str,
    image: int,
    sigma: float,
    top: int | None,
    shown: Sequence[int],
    images_of: str | None,
) -> "Basis":
    model = load(context, lookup.finished_model(context.record, run))
    if images_of is None and not isinstance(model, TrialModel):
        raise UserError(f"{model.name} was imported and has no held-out images; name a trial that has: --images-of RUN")
    source = load_trial(context, lookup.finished_trial(context.record, images_of)) if images_of else model
    assert isinstance(source, TrialModel)
    if source.shape != model.shape:
        raise UserError(f"{model.name} and {source.name} have images of different resolution or number of channels")
    clean = held_out_image(context, source, image)
    return analyse(model, source.trial.dataset, clean, image, sigma, top, context.device, shown)


def numbers(text: str) -> list[int]:
    """The numbers k that `--vectors` means: "0,3,7", or "5:245:12" for 5, 17, … up to 245, or both.

    Raises:
        UserError: another text, or more than a picture has room for.
    """
    found = list[int]()
    for part in text.split(","):
        try:
            first, *more = map(int, part.split(":"))
            last, step = (*more, *(first, 1)[len(more) :])
            found += range(first, last + 1, step)[: MOST_VECTORS + 1]
        except ValueError:
            raise UserError(f"vectors {text}: {part!r} is neither k nor FIRST:LAST nor FIRST:LAST:STEP") from None
        if len(found) > MOST_VECTORS:
            raise UserError(f"vectors {text}: a picture has room for {MOST_VECTORS}; show fewer")
    if not found or min(found) < 0:
        raise UserError(f"vectors {text}: that is none; the first is 0")
    return found


@dataclass(frozen=True)
class Basis:
    """The adaptive basis at one noisy image.

    clean, noisy, denoised (C, H, W), to be shown. `table` has a row an eigenvalue: `k`, `eigenvalue`, `coefficient`
    |<x, e_k>|; and, where the whole Jacobian was computed, `singular_value`, which belongs to other vectors than e_k.
    `dimensions` has a row a noise level: `sigma`, `effective_dimension`, `error`, `sure`, `output_psnr`. `angles` has
    a row a principal angle: `angle` in degrees; None where no tangent space is known. `vectors` has e_k (C, H, W) to be
    shown for each k, signed such that <x, e_k> is not negative, and `tangents` (m, C, H, W) those closest to the first
    e_k, none where no tangent space is known. `estimated`: whether trace (the effective dimension) and asymmetry are.
    """

    model: Model
    sigma: float
    clean: Tensor
    noisy: Tensor
    denoised: Tensor
    trace: float
    asymmetry: float
    estimated: bool
    table: pd.DataFrame
    dimensions: pd.DataFrame
    angles: pd.DataFrame | None
    vectors: dict[int, Tensor]
    tangents: Tensor

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """What there is of `basis`, `dimensions` and `angles`."""
        found = {"basis": self.table, "dimensions": self.dimensions}
        return found if self.angles is None else {**found, "angles": self.angles}

    def metrics(self) -> dict[str, float]:
        """The numbers of the basis."""
        found = {
            "top_eigenvalue": float(self.table["eigenvalue"][0]),
            "effective_dimension": self.trace,
            "asymmetry": self.asymmetry,
            "output_psnr": float(psnr.psnr(self.clean[None], self.denoised[None])),
        }
        return found if self.angles is None else {**found, "largest_angle": float(self.angles["angle"].max())}

    def data(self) -> dict[str, Any]:
        """What `--json` prints: the numbers, the tables, and of these the columns as lists."""
        columns = {"eigenvalues": "eigenvalue", "singular_values": "singular_value", "coefficients": "coefficient"}
        lists = {name: self.table[column].tolist() for name, column in columns.items() if column in self.table}
        angles = {} if self.angles is None else {"tangent_angles": self.angles["angle"].tolist()}
        tables = {stem: rows_of(table) for stem, table in self.tables.items()}
        return {**self.metrics(), "estimated": self.estimated, **lists, **angles, **tables}

    def lines(self) -> list[str]:
        """The numbers in words."""
        note = " (both estimated from random probes)" if self.estimated else ""
        found = [
            f"{self.model.name}: effective dimension {self.trace:.1f}, asymmetry {self.asymmetry:.3f}{note}",
        ]
        if self.angles is not None:
            found.append("angles to the tangent space: " + ", ".join(f"{angle:.1f}°" for angle in self.angles["angle"]))
        return found


def _together(bases: Sequence[Basis], stem: str) -> pd.DataFrame:
    """One table of those of all bases that have it, with the run's name in front."""
    tables = [basis.tables[stem] for basis in bases if stem in basis.tables]
    names = [basis.model.name for basis in bases if stem in basis.tables]
    found = [table.assign(run=name) for table, name in zip(tables, names, strict=True)]
    return pd.concat([table[["run", *table.columns.drop("run")]] for table in found])


def held_out_image(context: AnalysisContext, model: TrialModel, image: int) -> Tensor:
    """A held-out image of the model's data set, (1, C, H, W) in [0, 1].

    Raises:
        UserError: there are not so many.
    """
    if image >= model.trial.n_test:
        raise UserError(f"image {image}: {model.name} has {model.trial.n_test} held-out images, 0 and up")
    return unit(model.held_out(context)[image : image + 1])


def noise_at(image: int, clean: Tensor) -> Tensor:
    """z of the noisy image y = x + σz, like x = `clean`: it depends on the image's row alone."""
    return torch.randn(clean.shape, generator=noise.generator("basis", image))


def analyse(
    model: Model,
    dataset: Dataset,
    clean: Tensor,
    image: int,
    sigma: float,
    top: int | None,
    device: torch.device,
    shown: Sequence[int] = (),
) -> Basis:
    """The adaptive basis of a model at a held-out image.

    Args:
        dataset: the data set that the image belongs to.
        clean: the image, (1, C, H, W) in [0, 1].
        image: its row, on which the noise depends, and on nothing else.
        sigma: σ of the noise.
        top: how many eigenvalues to compute without the whole Jacobian; None means all where they are few enough.
        shown: which eigenvectors to keep, as far as they are computed.

    Raises:
        UserError: `top` is not below the number of pixels.
    """
    d = clean.numel()
    if top is not None and top >= d:
        raise UserError(f"top {top}: images of {d} pixels have at most {d - 1} top eigenvalues; leave it out for all")
    z = noise_at(image, clean)
    rows = []
    for level in sorted({*SIGMAS, sigma}, reverse=True):
        y = (clean + level * z).to(device)
        with torch.no_grad():
            f = model.denoiser(y).cpu()
        if level == sigma:
            spectrum = jacobian.whole_or_top(model.denoiser, y, top)
            noisy, denoised, trace = y.cpu(), f, spectrum.trace
        elif top is None and d <= EXACT:
            trace = float(jacobian.full(model.denoiser, y).trace())
        else:
            trace, _ = jacobian.estimates(model.denoiser, y)
        rows.append(
            {
                "sigma": level,
                "effective_dimension": trace,
                "error": float((clean - f).square().sum()) / level**2,
                "sure": float(psnr.sure(y.cpu(), f, level, trace)) / level**2,
                "output_psnr": float(psnr.psnr(clean, f)),
            }
        )
    coefficients = clean.flatten().double() @ spectrum.vectors
    columns = {"eigenvalue": spectrum.values, "coefficient": coefficients.abs()}
    if spectrum.singular_values is not None:
        columns["singular_value"] = spectrum.singular_values
    table = pd.DataFrame({"k": range(len(spectrum.values)), **{key: c.numpy() for key, c in columns.items()}})
    signed = spectrum.vectors * torch.where(coefficients < 0, -1.0, 1.0)
    tangents, angles, closest = tangent_space(dataset, image), None, clean.new_zeros(0, *clean.shape[1:])
    if tangents is not None:
        first = signed[:, : tangents.shape[1]]
        angles = pd.DataFrame({"angle": jacobian.principal_angles(tangents, first).rad2deg().numpy()})
        closest = jacobian.aligned(tangents, first).T.reshape(-1, *clean.shape[1:])
    show = _in_place(dataset, clean)
    return Basis(
        model=model,
        sigma=sigma,
        clean=show(clean),
        noisy=show(noisy),
        denoised=show(denoised),
        trace=spectrum.trace,
        asymmetry=spectrum.asymmetry,
        estimated=spectrum.estimated,
        table=table,
        dimensions=pd.DataFrame(rows),
        angles=angles,
        vectors={k: show(signed[:, k]) for k in shown if k < len(table)},
        tangents=closest,
    )


def _in_place(dataset: Dataset, like: Tensor) -> Callable[[Tensor], Tensor]:
    """d numbers ↦ the image (C, H, W) to be shown, of the size of `like`, with its pixels where they were before a data
    set shuffled them."""

    def show(pixels: Tensor) -> Tensor:
        image = pixels.reshape(like.shape[1:])
        return torch.from_numpy(unshuffle(image.numpy())) if dataset.shuffled else image

    return show


def tangent_space(dataset: Dataset, row: int) -> Tensor | None:
    """An orthonormal basis of the tangent space at an image of the data set, (d, m) float64; None if the images are no
    manifold, or their pixels are shuffled."""
    if not isinstance(dataset.source, Manifold) or dataset.shuffled:
        return None
    return torch.from_numpy(dataset.source.tangent_space(dataset.resolution, row))


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


COLUMNS = 5
"""Vectors beside each other."""


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
