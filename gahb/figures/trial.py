"""Pictures of a single trial: its PSNR curve and denoised held-out images."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from matplotlib.figure import Figure
from torch import Tensor

from gahb.data.intensity import mean, unit
from gahb.denoising import noise
from gahb.denoising.levels import INPUT_PSNR, SIGMAS
from gahb.denoising.sampling import sample
from gahb.figures.style import COLOURS, save, show_rows
from gahb.training.loop import Trained

if TYPE_CHECKING:
    from PIL.Image import Image

SHOWN_PSNR = (0, 6, 12, 18, 24)
"""Input PSNR in dB of the denoised examples."""

STAGE_PSNR = (0, 12)
"""The same, of those that are shown at each evaluation."""

SHOWN = 6
"""Images beside each other."""

TILE = 64
"""Pixels a side of an image, at least about, at each evaluation."""

CHEAP = 100_000
"""Images seen from which on a few samples are a small part of the training so far: of each a hundred steps or two, and
2000 at the most, beside three times as much for each image seen."""


def write_trial(folder: Path, trained: Trained, test_images: Tensor) -> None:
    """A trial's PSNR curve at every evaluation as data, the last as a picture, and denoised held-out images."""
    rows = [{"images_seen": e.images_seen, **row} for e in trained.history for row in e.curve.rows()]
    with (folder / "psnr_curve.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    save(psnr_curve(trained.history[-1].curve.rows()), folder / "psnr_curve.png")
    save(denoised_examples(trained.denoiser, test_images[:SHOWN]), folder / "denoised.png")


def psnr_curve(rows: Sequence[dict[str, float]]) -> Figure:
    """Output PSNR against input PSNR in dB on training and held-out images, with the identity (Figure 1)."""
    figure = Figure(figsize=(4.5, 4), layout="constrained")
    axes = figure.subplots()
    levels = [row["input_psnr"] for row in rows]
    axes.plot(levels, levels, color="0.6", linestyle=":", label="identity")
    axes.plot(levels, [row["train_psnr"] for row in rows], color=COLOURS[0], marker="o", markersize=3, label="train")
    axes.plot(levels, [row["test_psnr"] for row in rows], color=COLOURS[1], marker="s", markersize=3, label="test")
    axes.set_xlabel("input PSNR (dB)")
    axes.set_ylabel("output PSNR (dB)")
    axes.legend(frameon=False)
    return figure


def denoised_examples(denoiser: torch.nn.Module, images: Tensor) -> Figure:
    """Held-out images (n, C, H, W) as they are stored, noisy at SHOWN_PSNR and denoised: a column an image."""
    rows = denoised_rows(denoiser, images, SHOWN_PSNR)
    labels = ["clean", *(label for level in SHOWN_PSNR for label in (f"noisy, {level} dB", "denoised"))]
    figure = Figure(figsize=(1 + 0.8 * len(images), 0.8 * len(rows)), layout="constrained")
    axes = figure.subplots()
    show_rows(axes, rows, labels)
    return figure


@torch.no_grad()
def denoised_rows(denoiser: torch.nn.Module, images: Tensor, levels: Sequence[int]) -> list[Tensor]:
    """Stored images (n, C, H, W), and for each input PSNR in dB the same noisy and denoised, all in about [0, 1]."""
    device = next(denoiser.parameters()).device
    clean = unit(images.to(device))
    z = torch.randn(clean.shape, generator=noise.generator("examples")).to(device)
    rows = [clean]
    for level in levels:
        noisy = clean + SIGMAS[INPUT_PSNR.index(level)] * z
        rows += [noisy, denoiser(noisy)]
    return [row.cpu() for row in rows]


def stages(images_seen: int, denoiser: torch.nn.Module, test_images: Tensor) -> "Iterator[tuple[str, int, Image]]":
    """What to show of a trial at an evaluation, by name and images seen: held-out images (n, C, H, W) as stored, clean,
    noisy and denoised at STAGE_PSNR; and, from CHEAP images on, samples from noise that is common to all trials."""
    shown = test_images[:SHOWN]
    yield "denoised", images_seen, tiled(denoised_rows(denoiser, shown, STAGE_PSNR))
    if images_seen >= CHEAP:
        device = next(denoiser.parameters()).device
        drawn = sample(denoiser, SHOWN, shown.shape[1:], mean=mean(test_images), device=device)
        yield "samples", images_seen, tiled([drawn.images])


def tiled(rows: Sequence[Tensor]) -> "Image":
    """Rows of equally many images (n, C, H, W) in [0, 1] as one picture, each pixel a square of several."""
    from PIL import Image

    grid = torch.cat([torch.cat(list(row.clamp(0, 1)), dim=-1) for row in rows], dim=-2)
    pixels = (255 * grid).round().byte().movedim(0, -1).squeeze(-1).numpy()
    times = max(1, TILE // rows[0].shape[-1])
    return Image.fromarray(pixels.repeat(times, axis=0).repeat(times, axis=1))
