"""How far is a trained denoiser from those that need no training? (Sections 2.1, 3.1 and 3.2, eqs. 5-13 and 28-33)

On training images the empirical denoiser is the optimum, so a network near its curve has memorised them. On held-out
images the Wiener filter and thresholding (in cosines, wavelets and the best bandlet basis, tuned on training images,
with cycle spinning) are what a network must beat, and the oracles, which know the clean image, are what no shrinkage
in their basis can. All see the same noise on the same images, at most IMAGES of each set.

Each denoiser's excess is taken over the best at each σ of those that do not know the clean image, and integrated over
the grid of σ: in nats, and no bound (`gahb.denoising.excess`). Slopes are fitted as in `curves`, beside that of the
oracle in the best bandlet basis on freshly drawn images.

`terms` says how few terms stand for a held-out image, in each basis and in the network's own e_k(y), σ = TERMS_SIGMA
(eqs. 12, 13, 31-33), with the exponents of the error and of the coefficients.
"""

from collections.abc import Iterable, Iterator

import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from gahb.data.intensity import unit
from gahb.denoising import noise
from gahb.denoising.analytic import Basis, Cosines, Wavelets
from gahb.denoising.approximation import bandlet_errors, errors, exponent, sorted_energy
from gahb.denoising.bandlets import best_basis
from gahb.denoising.excess import At, excess_in_nats, squared_errors
from gahb.denoising.jacobian import spectrum
from gahb.denoising.psnr import INPUT_PSNR, SIGMAS, average_over_sigma
from gahb.denoising.references import DENOISERS
from gahb.execution.analysis import AnalysisContext, AnalysisResult, rows_of
from gahb.figures import style
from gahb.tracking import lookup

from .curves import WEAK_NOISE, Range, line, reference, where
from .models import TrialModel, load_trial

NETWORK = "network"
SETS = {"train": "training images", "test": "held-out images"}
CEILING = 100.0
"""The PSNR in dB of an image that is returned as it is."""

SHOWN = 45.0
"""Where the picture ends, in dB."""

IMAGES = 16
"""Noisy images of either set at each noise level; the best bandlet bases take the time."""

TERMS_IMAGES, TERMS_SIGMA = 4, 0.1
"""Held-out images whose terms are counted, and the noise of the y in e_k(y)."""

LARGEST = 1600
"""Numbers of an image up to which the whole spectrum of a network is computed."""

LABELS = {
    NETWORK: "network",
    "empirical": "empirical optimum of training images",
    "wiener": "Wiener filter of training images",
    "threshold_dct": "tuned threshold, cosines",
    "threshold_wavelet": "tuned threshold, wavelets",
    "threshold_bandlet": "tuned threshold, best bandlets",
    "oracle_dct": "oracle, cosines",
    "oracle_wavelet": "oracle, wavelets",
    "oracle_bandlet": "oracle, best bandlets",
}

BASES = {"network": "network's e_k(y)", "bandlet": "best bandlets", "wavelet": "wavelets", "dct": "cosines"}
"""Whose terms are counted."""


def run(context: AnalysisContext, *, run: str, fit: Range = WEAK_NOISE) -> AnalysisResult:
    """The result of `gahb-analyze theory`.

    Args:
        run: what names the trial.
        fit: where slopes are fitted.
    """
    model = load_trial(context, lookup.finished_trial(context.record, run))
    held_out = model.held_out(context)
    table = theory_table(model, held_out, context.device)
    summary = summary_table(table, fit)
    terms = terms_table(model, held_out[:TERMS_IMAGES], context.device)
    window = terms_window(held_out[0].numel())
    exponents = exponents_table(terms, window)
    beside = reference(model.trial.dataset, fit)
    rows = rows_of(summary)
    return AnalysisResult(
        name=f"theory of {model.name}",
        runs=[model.run],
        settings={"fit": fit},
        metrics=metrics(summary, exponents),
        tables={"theory": table, "summary": summary, "terms": terms, "exponents": exponents},
        pictures={"theory": figure(table, summary, model.name), "terms": terms_figure(terms, window, model.name)},
        data={"denoisers": rows, "exponents": rows_of(exponents), **beside},
        shown=[rows, rows_of(exponents)],
        lines=[
            f"slopes are fitted {where(fit)}, exponents from {window[0]:.3g} to {window[1]:.3g} terms",
            "kl: excess over the best of these at each σ, integrated over the grid, in nats; no bound",
            *([f"slope of the {beside['reference']}: {beside['reference_slope']:.3f}"] if beside["reference"] else []),
        ],
    )


def theory_table(
    model: TrialModel, held_out: Tensor, device: torch.device, names: Iterable[str] = tuple(DENOISERS)
) -> pd.DataFrame:
    """A row for each of SETS, denoiser and noise level: `images`, `denoiser`, `sigma`, `input_psnr`, `psnr` (dB, mean
    over images), `mse` (sum over pixels, mean over images) and `excess`, the MSE above the best's, NaN for oracles.

    Args:
        held_out: as stored, (n, C, H, W); of either set as many noisy images are made, and at most IMAGES.
        names: of the denoisers beside the network.
    """
    train_images = model.train_images.to(device)
    count = min(len(held_out), IMAGES)
    denoisers: dict[str, At] = {NETWORK: lambda sigma, clean: model.denoiser}
    denoisers |= {name: DENOISERS[name](unit(train_images)).at for name in names}
    rows = []
    for images, of in zip((train_images, held_out.to(device)), SETS, strict=True):
        for name, at in denoisers.items():
            squared = squared_errors(at, images, count).cpu()
            psnr = (-10 * (squared / held_out[0].numel()).log10()).clamp(max=CEILING).mean(dim=1)
            levels = zip(SIGMAS, INPUT_PSNR, psnr.tolist(), squared.mean(dim=1).tolist(), strict=True)
            rows += [(of, name, *level) for level in levels]
    table = pd.DataFrame(rows, columns=["images", "denoiser", "sigma", "input_psnr", "psnr", "mse"])
    fair = table["mse"].where(~table["denoiser"].map(is_oracle))
    return table.assign(excess=fair - fair.groupby([table["images"], table["sigma"]]).transform("min"))


def is_oracle(name: str) -> bool:
    """Whether a denoiser knows the clean image."""
    return name.startswith("oracle")


def summary_table(table: pd.DataFrame, fit: Range = WEAK_NOISE) -> pd.DataFrame:
    """A row a denoiser: `train_psnr`, `test_psnr` in dB, averaged over σ, `train_slope`, `test_slope`, fitted over a
    range, and `train_kl`, `test_kl`, the excess in nats over the best at each σ, no bound, NaN for oracles."""
    rows = []
    for name, curves in table.groupby("denoiser", sort=False):
        row: dict[str, float | str] = {"denoiser": str(name)}
        by_set = dict(list(curves.groupby("images")))
        row |= {f"{of}_psnr": average_over_sigma(tuple(by_set[of]["psnr"])) for of in SETS}
        row |= {f"{of}_slope": line(by_set[of]["input_psnr"], by_set[of]["psnr"], fit)[0] for of in SETS}
        row |= {f"{of}_kl": excess_in_nats(by_set[of]["sigma"].tolist(), by_set[of]["excess"]) for of in SETS}
        rows.append(row)
    return pd.DataFrame(rows)


def terms_table(model: TrialModel, held_out: Tensor, device: torch.device) -> pd.DataFrame:
    """A row for each of BASES and number of terms M = 1, 2, 3, 4, 6, … d, in steps of a quarter at most: `basis`,
    `terms`, `error`, the ‖x - x_M‖² of the M largest coefficients, and `energy`, the square of the M-th, all means over
    images. Best bandlet bases are chosen for each M, and for T = TERMS_SIGMA where `energy` is concerned. The network's
    basis is left out above LARGEST numbers an image.

    Args:
        held_out: as stored, (n, C, H, W).
    """
    clean = unit(held_out)
    d = clean[0].numel()
    counts = sorted({*(round(1.25**i) for i in range(80) if round(1.25**i) < d), d})
    kept = torch.tensor(counts) - 1
    tables = []
    for basis, error, energy in _terms(model, clean, device):
        means = {"error": error.mean(dim=0)[kept].tolist(), "energy": energy.mean(dim=0)[kept].tolist()}
        tables.append(pd.DataFrame({"basis": basis, "terms": counts, **means}))
    return pd.concat(tables, ignore_index=True)


def _terms(model: TrialModel, clean: Tensor, device: torch.device) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Each basis with the errors and the sorted energies of clean images (n, C, H, W), (n, d) each."""
    if clean[0].numel() <= LARGEST:
        noisy = clean + TERMS_SIGMA * torch.randn(clean.shape, generator=noise.generator("terms"))
        own = [spectrum(model.denoiser, y[None].to(device)).vectors.T @ x.flatten().double()
               for x, y in zip(clean, noisy, strict=True)]  # fmt: skip
        energy = sorted_energy(torch.stack(own))
        yield NETWORK, errors(clean, energy), energy
    yield "bandlet", bandlet_errors(clean), sorted_energy(best_basis(clean, TERMS_SIGMA).analyse(clean))
    fixed: dict[str, Basis] = {"wavelet": Wavelets(), "dct": Cosines()}
    for name, basis in fixed.items():
        energy = sorted_energy(basis.analyse(clean))
        yield name, errors(clean, energy), energy


def terms_window(numbers: int) -> Range:
    """Over how many terms exponents are fitted, for images of so many numbers."""
    return numbers / 160, numbers / 10


def exponents_table(terms: pd.DataFrame, window: Range) -> pd.DataFrame:
    """A row a basis: `error_exponent` p of ‖x - x_M‖² ~ M^-p, α for C^α images and M → ∞, and `coefficient_exponent` of
    a_k² ~ k^-p, α + 1."""
    rows = [
        {
            "basis": basis,
            "error_exponent": exponent(group["terms"], group["error"], window),
            "coefficient_exponent": exponent(group["terms"], group["energy"], window),
        }
        for basis, group in terms.groupby("basis", sort=False)
    ]
    return pd.DataFrame(rows)


def metrics(summary: pd.DataFrame, exponents: pd.DataFrame) -> dict[str, float]:
    """The network's rows as MLflow metrics."""
    found: dict[str, float] = {}
    for table, key in ((summary, "denoiser"), (exponents, "basis")):
        for _, row in table[table[key] == NETWORK].drop(columns=key).iterrows():
            found |= {str(name): float(value) for name, value in row.items()}
    return found


def terms_figure(terms: pd.DataFrame, window: Range, title: str) -> Figure:
    """The error after M terms, and the sorted coefficients, in log-log with the window of the exponents."""
    picture = Figure(figsize=(9, 4.2), layout="constrained")
    both = picture.subplots(1, 2)
    exponents = exponents_table(terms, window).set_index("basis").to_dict("index")
    for axes, key, label, named in (
        (both[0], "error", "‖x − x_M‖²", "error_exponent"),
        (both[1], "energy", "squared coefficient", "coefficient_exponent"),
    ):
        for i, (basis, group) in enumerate(terms.groupby("basis", sort=False)):
            name = f"{BASES[str(basis)]}: {exponents[basis][named]:.2f}"
            shown = group[group[key] > 1e-9]
            axes.loglog(
                shown["terms"], shown[key], color=_colour(str(basis)), marker="osD^"[i], markersize=3, label=name
            )
        axes.axvspan(*window, color="0.92", zorder=0)
        axes.set_xlabel("terms M" if key == "error" else "rank k")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=8, title="exponent", title_fontsize=8)
    picture.suptitle(style.plain(title), fontsize=11)
    return picture


def figure(table: pd.DataFrame, summary: pd.DataFrame, title: str) -> Figure:
    """PSNR curves on training and on held-out images; below, the excess in nats."""
    picture = Figure(figsize=(9, 7.5), layout="constrained")
    axes = picture.subplots(2, 2, height_ratios=(3, 1.3), sharey="row", sharex="row")
    for column, (of, label) in enumerate(SETS.items()):
        _draw_curves(axes[0, column], table[table["images"] == of])
        axes[0, column].set_title(label, fontsize=10)
        _draw_excess(axes[1, column], summary, f"{of}_kl")
    axes[0, 0].set_ylabel("output PSNR (dB)")
    axes[1, 0].invert_yaxis()
    handles, labels = axes[0, 0].get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    picture.suptitle(style.plain(title), fontsize=11)
    return picture


def _draw_curves(axes: Axes, table: pd.DataFrame) -> None:
    axes.plot(INPUT_PSNR, INPUT_PSNR, color="0.6", linestyle=":", label="identity")
    for name, label in LABELS.items():
        curve = table[table["denoiser"] == name]
        line = "--" if is_oracle(name) else "-"
        width = 2.5 if name == NETWORK else 1.3
        axes.plot(curve["input_psnr"], curve["psnr"], line, color=_colour(name), linewidth=width, label=label)
    axes.set_ylim(bottom=min(5, table["psnr"].min()), top=SHOWN)
    axes.set_xlabel("input PSNR (dB)")
    axes.grid(alpha=0.3)


def _draw_excess(axes: Axes, summary: pd.DataFrame, column: str) -> None:
    fair = summary[summary[column].notna()]
    names = [LABELS[name].removesuffix(" of training images") for name in fair["denoiser"]]
    axes.barh(names, fair[column], color=[_colour(name) for name in fair["denoiser"]], height=0.65)
    for i, value in enumerate(fair[column]):
        axes.annotate(f"{value:,.0f}", (value, i), (3, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_xscale("symlog", linthresh=10)
    axes.margins(x=0.2)
    axes.set_xlabel("excess over the best (nats)")


def _colour(name: str) -> str:
    order = [NETWORK, "empirical", "dct", "wavelet", "wiener", "bandlet"]
    return style.COLOURS[order.index(name.removeprefix("threshold_").removeprefix("oracle_"))]
