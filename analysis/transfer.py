"""How well does a denoiser do on images of another kind? The cross-domain test of denoisers trained on one class each.

A class is a data set. Of each, the model of the most training images of subset A denoises the held-out images of every
class at its resolution; measured is the PSNR averaged over σ in [0, 1], and the drop from the model that was trained on
the class itself. A small drop says that what was learned is not particular to the class.

Two data sets that were made of the same pictures do not know of each other: held-out images of one may be training
images of the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from gahb.data.intensity import unit
from gahb.denoising import noise, psnr
from gahb.errors import UserError
from gahb.execution.analysis import AnalysisContext, AnalysisResult, rows_of
from gahb.figures import style
from gahb.models.layers import Denoiser
from gahb.tracking import lookup
from gahb.tracking.run import Run, Tag

from .models import load_trial

SHOWN_PSNR = 12
"""Input PSNR in dB of the examples."""


def run(context: AnalysisContext, *, sweeps: Sequence[str]) -> AnalysisResult:
    """The result of `gahb-analyze transfer` for sweeps in the record."""
    sweeps = list(dict.fromkeys(sweeps))
    groups = choose([run for sweep in sweeps for run in lookup.finished_trials(context.record, sweep)])
    tables, pictures = [], {}
    for group in groups:
        specialists = load_specialists(context, group)
        tables.append(transfer_table(specialists, context.device))
        pictures[f"transfer_{group[0].flat['resolution']}"] = figure(tables[-1], specialists, context.device)
    table = pd.concat(tables, ignore_index=True)
    rows = rows_of(table)
    return AnalysisResult(
        name=f"transfer in {' and '.join(sweeps)}",
        sweep=sweeps[0],
        runs=[run for group in groups for run in group],
        metrics=metrics(table),
        tables={"transfer": table},
        pictures=pictures,
        data={"transfer": rows},
        shown=[rows],
    )


@dataclass(frozen=True)
class Specialist:
    """A model with the class it was trained on; `held_out` is (n, 1, H, W) uint8."""

    run: Run
    label: str
    denoiser: Denoiser
    held_out: Tensor


def choose(runs: Sequence[Run]) -> list[list[Run]]:
    """For each resolution with two classes or more, the oldest run of the largest N on subset A of each class.

    Raises:
        UserError: no resolution has two.
    """
    chosen: dict[int, dict[str, Run]] = {}
    for run in runs:
        if run.tags[Tag.SUBSET] == "A":
            classes = chosen.setdefault(run.flat["resolution"], {})
            best = classes.setdefault(run.tags[Tag.DATA_HASH], run)
            if run.flat["n_train"] > best.flat["n_train"]:
                classes[run.tags[Tag.DATA_HASH]] = run
    groups = [list(classes.values()) for _, classes in sorted(chosen.items()) if len(classes) > 1]
    if not groups:
        raise UserError(
            "transfer needs finished trials on subset A of two data sets at one resolution; name more sweeps"
        )
    return groups


def labels(runs: Sequence[Run]) -> list[str]:
    """The data set of each run, with the options in which those of one name differ, and its hash if that is not all."""
    datasets = [run.trial.dataset for run in runs]
    words = []
    for dataset in datasets:
        options, own = [d.flat() for d in datasets if d.name == dataset.name], dataset.flat()
        differ = [key for key in own if key != "dataset" and len({repr(o.get(key)) for o in options}) > 1]
        words.append(" ".join([dataset.name, *(f"{key}={own[key]}" for key in differ)]))
    hashes = [run.tags[Tag.DATA_HASH] for run in runs]
    return [w if words.count(w) == 1 else f"{w} {data_hash[:4]}" for w, data_hash in zip(words, hashes, strict=True)]


def load_specialists(context: AnalysisContext, runs: Sequence[Run]) -> list[Specialist]:
    """The models of runs, with the held-out images of their classes."""
    specialists = []
    for run, label in zip(runs, labels(runs), strict=True):
        model = load_trial(context, run)
        specialists.append(Specialist(run, label, model.denoiser, model.held_out(context)))
    return specialists


def transfer_table(specialists: Sequence[Specialist], device: torch.device) -> pd.DataFrame:
    """A row for each model and class: `resolution`, `model`, `n_train`, `images`, `psnr` averaged over σ and `drop`
    from the class's own model, both in dB."""
    count = min(len(s.held_out) for s in specialists)
    rows: list[dict[str, float | str]] = []
    for model in specialists:
        for of in specialists:
            curve = psnr.mean_psnr(model.denoiser, of.held_out[:count].to(device), count)
            rows.append(
                {
                    "resolution": model.run.flat["resolution"],
                    "model": model.label,
                    "n_train": model.run.flat["n_train"],
                    "images": of.label,
                    "psnr": psnr.average_over_sigma(curve),
                }
            )
    table = pd.DataFrame(rows)
    own = table[table["model"] == table["images"]].set_index("images")["psnr"]
    return table.assign(drop=table["images"].map(own) - table["psnr"])


def metrics(table: pd.DataFrame) -> dict[str, float]:
    """The mean drop on images of other classes, as MLflow metrics."""
    other = table[table["model"] != table["images"]]
    return {
        f"drop_{resolution}": float(drop) for resolution, drop in other.groupby("resolution")["drop"].mean().items()
    }


def figure(table: pd.DataFrame, specialists: Sequence[Specialist], device: torch.device) -> Figure:
    """PSNR and drop as heat maps with numbers, and a held-out image of each class denoised by every model."""
    names = [s.label for s in specialists]
    count = len(names)
    side = 1.1 * count + 1.6
    picture = Figure(figsize=(2 * side + 0.95 * (count + 2) + 1.5, side + 0.8), layout="constrained")
    left, middle, right = picture.subplots(1, 3, width_ratios=(side, side, 0.95 * (count + 2) + 1.2))
    _draw_matrix(left, _matrix(table, "psnr", names), "PSNR (dB)", "cividis")
    _draw_matrix(middle, _matrix(table, "drop", names), "drop from the class's own model (dB)", "cividis_r")
    left.set_ylabel("trained on")
    middle.set_yticklabels([])
    _draw_examples(right, specialists, device)
    side_pixels = int(table["resolution"].iloc[0])
    numbers = [s.run.flat["n_train"] for s in specialists]
    sizes = f"N = {numbers[0]:,}" if len(set(numbers)) == 1 else f"N = {min(numbers):,} … {max(numbers):,}"
    picture.suptitle(f"{side_pixels}×{side_pixels}, {sizes}", fontsize=11)
    return picture


def _matrix(table: pd.DataFrame, column: str, names: Sequence[str]) -> pd.DataFrame:
    """Models in rows, images in columns."""
    return table.pivot(index="model", columns="images", values=column).loc[list(names), list(names)]


def _draw_matrix(axes: Axes, matrix: pd.DataFrame, title: str, colours: str) -> None:
    low, high = matrix.to_numpy().min(), matrix.to_numpy().max()
    image = axes.imshow(matrix.to_numpy(), cmap=colours, vmin=low, vmax=max(high, low + 1))
    for row, values in enumerate(matrix.to_numpy()):
        for column, value in enumerate(values):
            red, green, blue, _ = image.to_rgba(value)
            dark = 0.3 * red + 0.6 * green + 0.1 * blue < 0.5
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color="white" if dark else "black")
    ticks = range(len(matrix))
    names = [style.plain(_short(str(name))) for name in matrix.index]
    axes.set_xticks(ticks, names, rotation=30, ha="right", fontsize=8)
    axes.set_yticks(ticks, names, fontsize=8)
    axes.set_xlabel("tested on")
    axes.set_title(title, fontsize=9)


@torch.no_grad()
def _draw_examples(axes: Axes, specialists: Sequence[Specialist], device: torch.device) -> None:
    """A row a class: clean, noisy, and denoised by each model."""
    clean = torch.cat([unit(s.held_out[:1]) for s in specialists])
    sigma = psnr.SIGMAS[psnr.INPUT_PSNR.index(SHOWN_PSNR)]
    noisy = clean + sigma * torch.randn(clean.shape, generator=noise.generator("examples"))
    columns = [clean, noisy, *(s.denoiser(noisy.to(device)).cpu() for s in specialists)]
    rows = torch.stack(columns, dim=1)
    style.show_rows(axes, list(rows), [_short(s.label) for s in specialists])
    width = clean.shape[-1] + 1
    heads = ["clean", f"{SHOWN_PSNR} dB", *(style.plain(f"by {_short(s.label)}") for s in specialists)]
    axes.set_xticks([1 + width * (i + 0.5) for i in range(len(heads))], heads, rotation=30, ha="right", fontsize=8)
    axes.tick_params(axis="y", labelsize=8)
    axes.set_title("a held-out image of each class", fontsize=9)


def _short(name: str) -> str:
    return name if len(name) <= 16 else f"{name[:9]}…{name[-6:]}"
