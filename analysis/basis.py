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

from collections.abc import Sequence

import pandas as pd

from gahb.errors import UserError
from gahb.execution.analysis import AnalysisContext, AnalysisResult, rows_of
from gahb.tracking import lookup

from .adaptive_basis import Basis, analyse, held_out_image
from .basis_figure import figure
from .models import TrialModel, load, load_trial

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
) -> Basis:
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


def _together(bases: Sequence[Basis], stem: str) -> pd.DataFrame:
    """One table of those of all bases that have it, with the run's name in front."""
    tables = [basis.tables[stem] for basis in bases if stem in basis.tables]
    names = [basis.model.name for basis in bases if stem in basis.tables]
    found = [table.assign(run=name) for table, name in zip(tables, names, strict=True)]
    return pd.concat([table[["run", *table.columns.drop("run")]] for table in found])
