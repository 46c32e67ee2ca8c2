"""How far is a trained denoiser from the closed-form ones that know its training images? (Section 2.1, eqs. 5-13)

On training images the empirical denoiser is the optimum, so a network near its curve has memorised them. On held-out
images the Wiener filter and thresholding in a fixed basis are what a network must beat, and the oracles, which know the
clean image, are what no shrinkage in their basis can. All see the same noise.

Each denoiser's KL bound (eq. 5) is taken against the best at each σ of those that do not know the clean image. Slopes
are fitted as in `curves`.
"""

import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from gahb.data.intensity import unit
from gahb.denoising.analytic import DENOISERS
from gahb.denoising.kl_bound import At, kl_bound, squared_errors
from gahb.denoising.psnr import INPUT_PSNR, SIGMAS, average_over_sigma
from gahb.execution.analysis import AnalysisContext, AnalysisResult, rows_of
from gahb.figures import style
from gahb.tracking import lookup

from .curves import WEAK_NOISE, Range, line, where
from .models import TrialModel, load_trial

NETWORK = "network"
SETS = {"train": "training images", "test": "held-out images"}
CEILING = 100.0
"""The PSNR in dB of an image that is returned as it is."""

SHOWN = 45.0
"""Where the picture ends, in dB."""

LABELS = {
    NETWORK: "network",
    "empirical": "empirical optimum of training images",
    "wiener": "Wiener filter of training images",
    "threshold_dct": "threshold, cosines",
    "threshold_wavelet": "threshold, wavelets",
    "oracle_dct": "oracle, cosines",
    "oracle_wavelet": "oracle, wavelets",
}


def run(context: AnalysisContext, *, run: str, fit: Range = WEAK_NOISE) -> AnalysisResult:
    """The result of `gahb-analyze theory`.

    Args:
        run: what names the trial.
        fit: where slopes are fitted.
    """
    model = load_trial(context, lookup.finished_trial(context.record, run))
    table = theory_table(model, model.held_out(context), context.device)
    summary = summary_table(table, fit)
    rows = rows_of(summary)
    return AnalysisResult(
        name=f"theory of {model.name}",
        runs=[model.run],
        settings={"fit": fit},
        metrics=metrics(summary),
        tables={"theory": table, "summary": summary},
        pictures={"theory": figure(table, summary, model.name)},
        data={"denoisers": rows},
        shown=[rows],
        lines=[f"slopes are fitted {where(fit)}"],
    )


def theory_table(model: TrialModel, held_out: Tensor, device: torch.device) -> pd.DataFrame:
    """A row for each of SETS, denoiser and noise level: `images`, `denoiser`, `sigma`, `input_psnr`, `psnr` (dB, mean
    over images), `mse` (sum over pixels, mean over images) and `excess`, the MSE above the best's, NaN for oracles.

    Args:
        held_out: (n, 1, H, W) uint8; as many noisy images are made of either set.
    """
    train_images = model.train_images.to(device)
    denoisers: dict[str, At] = {NETWORK: lambda sigma, clean: model.denoiser}
    denoisers |= {name: make(unit(train_images)).at for name, make in DENOISERS.items()}
    rows = []
    for images, of in zip((train_images, held_out.to(device)), SETS, strict=True):
        for name, at in denoisers.items():
            errors = squared_errors(at, images, len(held_out)).cpu()
            psnr = (-10 * (errors / held_out[0].numel()).log10()).clamp(max=CEILING).mean(dim=1)
            levels = zip(SIGMAS, INPUT_PSNR, psnr.tolist(), errors.mean(dim=1).tolist(), strict=True)
            rows += [(of, name, *level) for level in levels]
    table = pd.DataFrame(rows, columns=["images", "denoiser", "sigma", "input_psnr", "psnr", "mse"])
    fair = table["mse"].where(~table["denoiser"].map(is_oracle))
    return table.assign(excess=fair - fair.groupby([table["images"], table["sigma"]]).transform("min"))


def is_oracle(name: str) -> bool:
    """Whether a denoiser knows the clean image."""
    return name.startswith("oracle")


def summary_table(table: pd.DataFrame, fit: Range = WEAK_NOISE) -> pd.DataFrame:
    """A row a denoiser: `train_psnr`, `test_psnr` in dB, averaged over σ, `train_slope`, `test_slope`, fitted over a
    range, and `train_kl`, `test_kl`, the bounds in nats, NaN for oracles."""
    rows = []
    for name, curves in table.groupby("denoiser", sort=False):
        row: dict[str, float | str] = {"denoiser": str(name)}
        by_set = dict(list(curves.groupby("images")))
        row |= {f"{of}_psnr": average_over_sigma(tuple(by_set[of]["psnr"])) for of in SETS}
        row |= {f"{of}_slope": line(by_set[of]["input_psnr"], by_set[of]["psnr"], fit)[0] for of in SETS}
        row |= {f"{of}_kl": kl_bound(by_set[of]["sigma"].tolist(), by_set[of]["excess"]) for of in SETS}
        rows.append(row)
    return pd.DataFrame(rows)


def metrics(summary: pd.DataFrame) -> dict[str, float]:
    """The network's row as MLflow metrics."""
    network = summary[summary["denoiser"] == NETWORK].drop(columns="denoiser").iloc[0]
    return {str(key): float(value) for key, value in network.items()}


def figure(table: pd.DataFrame, summary: pd.DataFrame, title: str) -> Figure:
    """PSNR curves on training and on held-out images; below, the KL bounds."""
    picture = Figure(figsize=(9, 7.5), layout="constrained")
    axes = picture.subplots(2, 2, height_ratios=(3, 1.3), sharey="row", sharex="row")
    for column, (of, label) in enumerate(SETS.items()):
        _draw_curves(axes[0, column], table[table["images"] == of])
        axes[0, column].set_title(label, fontsize=10)
        _draw_bounds(axes[1, column], summary, f"{of}_kl")
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


def _draw_bounds(axes: Axes, summary: pd.DataFrame, column: str) -> None:
    fair = summary[summary[column].notna()]
    names = [LABELS[name].removesuffix(" of training images") for name in fair["denoiser"]]
    axes.barh(names, fair[column], color=[_colour(name) for name in fair["denoiser"]], height=0.65)
    for i, value in enumerate(fair[column]):
        axes.annotate(f"{value:,.0f}", (value, i), (3, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_xscale("symlog", linthresh=10)
    axes.margins(x=0.2)
    axes.set_xlabel("KL bound (nats)")


def _colour(name: str) -> str:
    order = [NETWORK, "empirical", "threshold_dct", "threshold_wavelet", "wiener"]
    return style.COLOURS[order.index(name.replace("oracle", "threshold"))]
