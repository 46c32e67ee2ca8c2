"""How many dimensions does a denoiser keep of a noisy image, and which? Over held-out images, at several noise levels.

At y = x + σz let J be the Jacobian and S = (J + Jᵀ)/2 = Σ_k λ_k e_k e_kᵀ. The table has, with norms of Frobenius,

    effective_dimension    tr J,
    above_half             the number of λ_k > 1/2,
    asymmetry              ‖J - Jᵀ‖ / ‖J‖,
    negative_part          ‖S₋‖ / ‖S‖,    S₋ = Σ min(λ_k, 0) e_k e_kᵀ.

The optimal J is symmetric with λ_k ≥ 0, so the last two are 0. Where the images are a manifold with a known tangent
space at x, of dimension m, and P is the projection on it, the optimum for weak noise is J = P (§3.2). What a network
keeps besides, the paper finds to be harmonics. E‖J z‖² = ‖J‖² is the noise that J lets through, and

    outside     ‖J (Id - P)‖² / ‖J‖²

the share of it that comes from outside the tangent space. With S⊥ = (Id - P) S (Id - P) = Σ_k μ_k v_k v_kᵀ and the
cosines c_f of the image's square (DCT-II),

    harmonic    Σ_{f ∈ L} ‖S⊥ c_f‖² / ‖S⊥‖² = Σ_k μ_k² Σ_{f ∈ L} <v_k, c_f>² / Σ_k μ_k²

is the mean energy that the outside vectors v_k have in L, the lowest sixteenth of the frequencies (of those f = (a, b)
with the least a² + b²), weighted by μ_k². Vectors of white noise have 1/16 there. A harmonic of a region that jumps at
the contour has a part of its energy in higher frequencies: harmonics adapted to the geometry have less than plain ones.

Means over images have 95 % percentile bootstrap intervals, images being drawn anew with all their noise levels.
"""

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.fft import dctn
from torch import Tensor

from gahb.denoising import jacobian
from gahb.errors import UserError
from gahb.execution.analysis import AnalysisContext, AnalysisResult, rows_of
from gahb.figures import style
from gahb.tracking import lookup
from gahb.tracking.run import Run

from .adaptive_basis import SIGMAS, held_out_image, noise_at, tangent_space
from .models import load_trial

LABELS = {
    "effective_dimension": "effective dimension tr J",
    "above_half": "number of λ > 1/2",
    "asymmetry": "asymmetry ‖J - Jᵀ‖ / ‖J‖",
    "negative_part": "negative part ‖S₋‖ / ‖S‖",
    "outside": "noise from outside the tangent space",
    "harmonic": "of that in low frequencies",
}
"""The columns and what they mean; the last two are of manifolds."""

WHITE = 1 / 16
"""The share of the frequencies that are low, and so of white noise's energy in them."""

RESAMPLES = 2000
"""Of the bootstrap."""


def run(context: AnalysisContext, *, run: str, images: int) -> AnalysisResult:
    """The result of `gahb-analyze dimension`; each image is a Ray task.

    Args:
        run: what names the trial.
        images: how many of the held-out images, the first ones.
    """
    found = lookup.finished_trial(context.record, run)
    trial = found.trial
    if images > trial.n_test:
        raise UserError(f"images {images}: {found.name} has {trial.n_test} held-out images; use as many at most")
    work = [(found, image) for image in range(images)]
    table = pd.concat(context.map_on_cluster(_of_image, work, [f"image {image}" for image in range(images)]))
    summary = summary_table(table)
    rows = rows_of(summary)
    return AnalysisResult(
        name=f"dimension of {found.name}",
        runs=[found],
        settings={"images": images},
        metrics={f"{row['quantity']}_at_{row['sigma']:g}": row["mean"] for row in rows},
        tables={"dimension": table, "summary": summary},
        pictures={"dimension": figure(summary, found.name)},
        data={"dimension": rows_of(table), "summary": rows},
        shown=[rows],
    )


def _of_image(context: AnalysisContext, work: tuple[Run, int]) -> pd.DataFrame:
    """The rows of one image, a noise level each."""
    run, image = work
    model = load_trial(context, run)
    clean = held_out_image(context, model, image)
    if clean.numel() > jacobian.WHOLE:
        raise UserError(
            f"{model.name} has images of {clean.numel()} numbers, and whole Jacobians end at {jacobian.WHOLE}"
        )
    z, tangents = noise_at(image, clean), tangent_space(model.trial.dataset, image)
    rows = []
    for sigma in SIGMAS:
        y = (clean + sigma * z).to(context.device)
        rows.append({"image": image, "sigma": sigma, **measures(jacobian.full(model.denoiser, y), tangents)})
    return pd.DataFrame(rows)


def measures(j: Tensor, tangents: Tensor | None) -> dict[str, float]:
    """The columns of a Jacobian (d, d): the first four, and, with an orthonormal basis (d, m) of the tangent space of
    square gray images, all six."""
    j = j.double()
    symmetric = (j + j.T) / 2
    values = torch.linalg.eigvalsh(symmetric)
    found = {
        "effective_dimension": float(j.trace()),
        "above_half": float((values > 0.5).sum()),
        "asymmetry": jacobian.asymmetry(j),
        "negative_part": float(values.clamp(max=0).norm() / values.norm()),
    }
    if tangents is None:
        return found
    t = tangents.to(j)
    off = symmetric - t @ (t.T @ symmetric)
    off = off - (off @ t) @ t.T
    return {
        **found,
        "outside": float(1 - (j @ t).square().sum() / j.square().sum()),
        "harmonic": low_share(off.cpu().numpy()),
    }


def low_share(matrix: NDArray[np.float64]) -> float:
    """Σ_{f ∈ L} ‖A c_f‖² / ‖A‖² of a symmetric matrix A (d, d) on square images of d pixels; nan for A = 0."""
    side = round(len(matrix) ** 0.5)
    energy = np.square(dctn(matrix.reshape(side, side, -1), axes=(0, 1), norm="ortho")).sum(axis=-1)
    a = np.arange(side)
    low = np.argsort((a[:, None] ** 2 + a**2).ravel(), kind="stable")[: round(WHITE * side**2)]
    return float(energy.ravel()[low].sum() / energy.sum()) if energy.any() else np.nan


def summary_table(table: pd.DataFrame) -> pd.DataFrame:
    """A row a noise level and quantity: `sigma`, `quantity`, `mean` over images, and `low` and `high` of its bootstrap
    interval."""
    count = table["image"].nunique()
    draws = np.random.default_rng(0).integers(count, size=(RESAMPLES, count))
    rows = []
    for sigma, level in table.groupby("sigma", sort=False):
        for quantity in [key for key in LABELS if key in table]:
            values = level.sort_values("image")[quantity].to_numpy()
            low, high = np.quantile(values[draws].mean(axis=1), [0.025, 0.975])
            rows.append({"sigma": sigma, "quantity": quantity, "mean": values.mean(), "low": low, "high": high})
    return pd.DataFrame(rows)


def figure(summary: pd.DataFrame, name: str) -> Figure:
    """A panel a quantity: its mean against σ, with the interval."""
    shown = [key for key in LABELS if key in set(summary["quantity"])]
    picture = Figure(figsize=(3.6 * len(shown) / 2, 6), layout="constrained")
    for axes, quantity in zip(picture.subplots(2, len(shown) // 2).flat, shown, strict=True):
        draw(axes, summary[summary["quantity"] == quantity], quantity)
    picture.suptitle(style.plain(name), fontsize=10)
    return picture


def draw(axes: Axes, rows: pd.DataFrame, quantity: str) -> None:
    """A quantity's mean against σ, with the interval and, for the share in low frequencies, that of white noise."""
    axes.fill_between(rows["sigma"], rows["low"], rows["high"], color=style.COLOURS[0], alpha=0.25, linewidth=0)
    axes.plot(rows["sigma"], rows["mean"], "o-", color=style.COLOURS[0], markersize=4)
    if quantity == "harmonic":
        axes.axhline(WHITE, color=style.COLOURS[7], linestyle=":", label="white noise")
        axes.legend(frameon=False, fontsize=8)
    axes.set_xscale("log")
    axes.set_xticks(SIGMAS, [f"{sigma:g}" for sigma in SIGMAS])
    axes.minorticks_off()
    axes.set_ylim(bottom=None if rows["low"].min() < 0 else 0)
    axes.set_xlabel("σ")
    axes.set_title(LABELS[quantity], fontsize=9)
    axes.grid(alpha=0.3)
