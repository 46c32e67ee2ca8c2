"""The basis in which a denoiser shrinks a noisy image: the spectrum of its Jacobian there, and what it is held against.

y = x + σz, x a held-out image, f(y) = Σ_k λ_k <y, e_k> e_k; `basis` says what the numbers are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from gahb.data.dataset import Dataset
from gahb.data.intensity import unit
from gahb.data.manifold import Manifold
from gahb.data.pixel_shuffling import unshuffle
from gahb.denoising import jacobian, noise, psnr
from gahb.errors import UserError
from gahb.execution.analysis import AnalysisContext, rows_of

from .models import Model, TrialModel

EXACT = 1600
"""Numbers in an image (pixels, times channels) up to which the effective dimension is exact at the other noise levels
too."""

SIGMAS = (0.5, 0.2, 0.1, 0.05, 0.02)
"""Noise levels at which the effective dimension is measured, besides the one asked for."""


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
