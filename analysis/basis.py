"""In which basis does a denoiser shrink a noisy image? (Figures 3–5 and 16–21, §3.2)

At y = x + σz, x a held-out image, f(y) = Σ_k λ_k <y, e_k> e_k with the eigenvalues and eigenvectors of the Jacobian's
symmetric part. Beside the shrinkage factors λ_k stand the coefficients |<x, e_k>|: where these decay quickly, few
basis vectors hold the image. At several σ, in units of σ², stand

    tr J,    ‖x - f(y)‖²/σ²,    2 tr J + ‖y - f(y)‖²/σ² - d,

the effective dimension, the squared error and its estimate without the clean image (SURE). For the optimal denoiser
all three have one mean over noise and images (eqs. 7 and 10): the effective dimension is the error in units of σ².

Where the data set is a manifold whose tangent space at x is known, of dimension m, the optimum for weak noise projects
on it; the principal angles between it and e_0 … e_{m-1} say how far the denoiser is from that.
"""

from dataclasses import dataclass

import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from torch import Tensor

from gahb.data.dataset import Dataset
from gahb.data.intensity import unit
from gahb.data.manifold import Manifold
from gahb.denoising import jacobian, noise, psnr
from gahb.denoising.jacobian import Spectrum
from gahb.errors import UserError
from gahb.execution.analysis import AnalysisContext, AnalysisResult, rows_of
from gahb.figures import style
from gahb.tracking import lookup

from .models import Model, TrialModel, load, load_trial

MOST_PIXELS = 1600
"""Up to so many pixels the whole Jacobian is computed, beyond it the top of the spectrum."""

TOP = 50
"""Eigenvalues computed beyond that size."""

SIGMAS = (0.5, 0.2, 0.1, 0.05, 0.02)
"""Noise levels at which the effective dimension is measured, besides the one asked for."""

SHOWN = 20
"""Eigenvectors in the picture."""


def run(
    context: AnalysisContext, *, run: str, image: int, sigma: float, top: int | None, images_of: str | None = None
) -> AnalysisResult:
    """The result of `gahb-analyze basis`.

    Args:
        run: what names the model's run.
        image: row among the held-out images.
        sigma: σ of the noise.
        top: see `analyse`.
        images_of: what names the trial whose held-out images are used; the model's own if left out.
    """
    model = load(context, lookup.finished_model(context.record, run))
    if images_of is None and not isinstance(model, TrialModel):
        raise UserError(f"{model.name} was imported and has no held-out images; name a trial that has: --images-of RUN")
    source = load_trial(context, lookup.finished_trial(context.record, images_of)) if images_of else model
    assert isinstance(source, TrialModel)
    if source.resolution != model.resolution:
        raise UserError(f"{model.name} and {source.name} have images of different resolution")
    basis = analyse(
        model, source.trial.dataset, held_out_image(context, source, image), image, sigma, top, context.device
    )
    tables = {"basis": basis.table, "dimensions": basis.dimensions}
    if basis.angles is not None:
        tables["angles"] = basis.angles
    metrics, estimated = basis.metrics(), basis.spectrum.estimated
    rows = {stem: rows_of(table) for stem, table in tables.items()}
    note = " (both estimated from random probes)" if estimated else ""
    lines = [f"effective dimension {basis.spectrum.trace:.1f}, asymmetry {basis.spectrum.asymmetry:.3f}{note}"]
    if basis.angles is not None:
        lines.append("angles to the tangent space: " + ", ".join(f"{row['angle']:.1f}°" for row in rows["angles"]))
    return AnalysisResult(
        name=f"basis of {model.name}",
        runs=[model.run],
        settings={"image": image, "images_of": images_of, "sigma": sigma, "top": top, "estimated": estimated},
        metrics=metrics,
        tables=tables,
        pictures={"basis": figure(basis)},
        data={**metrics, "estimated": estimated, **rows},
        shown=[rows["basis"][:SHOWN], rows["dimensions"]],
        lines=lines,
    )


@dataclass(frozen=True)
class Basis:
    """The adaptive basis at one noisy image.

    clean, noisy, denoised (1, 1, H, W). `table` has a row an eigenvalue: `k`, `eigenvalue`, `coefficient` |<x, e_k>|.
    `dimensions` has a row a noise level: `sigma`, `effective_dimension`, `error`, `sure`, `output_psnr`. `angles` has
    a row a principal angle: `angle` in degrees; None where no tangent space is known.
    """

    model: Model
    sigma: float
    clean: Tensor
    noisy: Tensor
    denoised: Tensor
    spectrum: Spectrum
    table: pd.DataFrame
    dimensions: pd.DataFrame
    angles: pd.DataFrame | None

    def metrics(self) -> dict[str, float]:
        """The numbers of the basis."""
        found = {
            "top_eigenvalue": float(self.spectrum.values[0]),
            "effective_dimension": self.spectrum.trace,
            "asymmetry": self.spectrum.asymmetry,
            "output_psnr": float(psnr.psnr(self.clean, self.denoised)),
        }
        return found if self.angles is None else {**found, "largest_angle": float(self.angles["angle"].max())}


def held_out_image(context: AnalysisContext, model: TrialModel, image: int) -> Tensor:
    """A held-out image of the model's data set, (1, 1, H, W) in [0, 1].

    Raises:
        UserError: there are not so many.
    """
    if image >= model.trial.n_test:
        raise UserError(f"image {image}: {model.name} has {model.trial.n_test} held-out images, 0 and up")
    return unit(model.held_out(context)[image : image + 1])


def analyse(
    model: Model, dataset: Dataset, clean: Tensor, image: int, sigma: float, top: int | None, device: torch.device
) -> Basis:
    """The adaptive basis of a model at a held-out image.

    Args:
        dataset: the data set that the image belongs to.
        clean: the image, (1, 1, H, W) in [0, 1].
        image: its row, on which the noise depends, and on nothing else.
        sigma: σ of the noise.
        top: how many eigenvalues to compute without the whole Jacobian; None means all where they are few enough.

    Raises:
        UserError: `top` is not below the number of pixels.
    """
    d = clean.numel()
    if top is not None and top >= d:
        raise UserError(f"top {top}: images of {d} pixels have at most {d - 1} top eigenvalues; leave it out for all")
    whole = top is None and d <= MOST_PIXELS
    z = torch.randn(clean.shape, generator=noise.generator("basis", image))
    rows = []
    for level in sorted({*SIGMAS, sigma}, reverse=True):
        y = (clean + level * z).to(device)
        with torch.no_grad():
            f = model.denoiser(y).cpu()
        if level == sigma:
            spectrum = (
                jacobian.spectrum(model.denoiser, y) if whole else jacobian.top_spectrum(model.denoiser, y, top or TOP)
            )
            noisy, denoised, trace = y.cpu(), f, spectrum.trace
        elif whole:
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
    coefficients = (clean.flatten().double() @ spectrum.vectors).abs()
    table = pd.DataFrame(
        {"k": range(len(spectrum.values)), "eigenvalue": spectrum.values.numpy(), "coefficient": coefficients.numpy()}
    )
    angles = tangent_angles(dataset, image, spectrum)
    return Basis(model, sigma, clean, noisy, denoised, spectrum, table, pd.DataFrame(rows), angles)


def tangent_angles(dataset: Dataset, row: int, spectrum: Spectrum) -> pd.DataFrame | None:
    """The principal angles in degrees between the span of the top m eigenvectors and the tangent space of dimension m
    at an image; None if the images are no manifold, or their pixels are shuffled."""
    if not isinstance(dataset.source, Manifold) or dataset.shuffled:
        return None
    tangents = torch.from_numpy(dataset.source.tangent_space(dataset.resolution, row))
    angles = jacobian.principal_angles(tangents, spectrum.vectors[:, : tangents.shape[1]])
    return pd.DataFrame({"angle": angles.rad2deg().numpy()})


def figure(basis: Basis) -> Figure:
    """Figure 3: the image clean, noisy and denoised, the decay of λ_k and coefficients, the effective dimension against
    σ, and the top eigenvectors."""
    picture = Figure(figsize=(13, 5.2), layout="constrained")
    left, right = picture.subfigures(1, 2, width_ratios=(7, 6), squeeze=False).flat
    top, bottom = left.subfigures(2, 1, height_ratios=(1, 1.6), squeeze=False).flat
    images = {"clean": basis.clean, f"noisy, σ = {basis.sigma:g}": basis.noisy, "denoised": basis.denoised}
    for axes, (label, image) in zip(top.subplots(1, 3), images.items(), strict=True):
        axes.imshow(image.squeeze().numpy(), cmap="gray", vmin=0, vmax=1)
        axes.set_title(label, fontsize=9)
        axes.axis("off")
    decay, dimension = bottom.subplots(1, 2)
    draw_decay(decay, basis.table)
    draw_dimensions(dimension, basis.dimensions)
    for k, axes in enumerate(right.subplots(4, SHOWN // 4).flat):
        axes.axis("off")
        if k < len(basis.table):
            draw_eigenvector(axes, basis, k)
    picture.suptitle(style.plain(basis.model.name), fontsize=10)
    return picture


def draw_decay(axes: Axes, table: pd.DataFrame) -> None:
    """λ_k and |<x, e_k>| against k, each with an axis of its own."""
    other = axes.twinx()
    other.plot(table["k"], table["coefficient"], ".", color=style.COLOURS[0], markersize=4)
    other.set_ylabel("|⟨x, e$_k$⟩|", color=style.COLOURS[0])
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


def draw_eigenvector(axes: Axes, basis: Basis, k: int) -> None:
    """e_k as an image, zero a medium gray, signed such that <x, e_k> is not negative."""
    vector = basis.spectrum.vectors[:, k].view(basis.clean.shape[-2:])
    if (vector * basis.clean[0, 0]).sum() < 0:
        vector = -vector
    largest = float(vector.abs().max())
    axes.imshow(vector.numpy(), cmap="gray", vmin=-largest, vmax=largest, interpolation="nearest")
    axes.set_title(f"λ$_{{{k}}}$ = {basis.table['eigenvalue'][k]:.3f}", fontsize=8)
