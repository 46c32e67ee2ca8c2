"""Pictures of a single trial: its PSNR curve and denoised held-out images."""

import csv
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from gahb.data.intensity import unit
from gahb.denoising import noise
from gahb.denoising.levels import INPUT_PSNR, SIGMAS
from gahb.figures.style import COLOURS, save, show_rows
from gahb.training.loop import Trained

SHOWN_PSNR = (0, 6, 12, 18, 24)
"""Input PSNR in dB of the denoised examples."""


def write_trial(folder: Path, trained: Trained, test_images: Tensor) -> None:
    """A trial's PSNR curve at every evaluation as data, the last as a picture, and denoised held-out images."""
    rows = [{"images_seen": e.images_seen, **row} for e in trained.history for row in e.curve.rows()]
    with (folder / "psnr_curve.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    save(psnr_curve(trained.history[-1].curve.rows()), folder / "psnr_curve.png")
    save(denoised_examples(trained.denoiser, test_images[:6]), folder / "denoised.png")


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


@torch.no_grad()
def denoised_examples(denoiser: torch.nn.Module, images: Tensor) -> Figure:
    """Held-out images (n, C, H, W) as they are stored, noisy at SHOWN_PSNR and denoised: a column an image."""
    device = next(denoiser.parameters()).device
    clean = unit(images.to(device))
    z = torch.randn(clean.shape, generator=noise.generator("examples")).to(device)
    rows, labels = [clean], ["clean"]
    for level in SHOWN_PSNR:
        noisy = clean + SIGMAS[INPUT_PSNR.index(level)] * z
        rows += [noisy, denoiser(noisy)]
        labels += [f"noisy, {level} dB", "denoised"]
    figure = Figure(figsize=(1 + 0.8 * len(clean), 0.8 * len(rows)), layout="constrained")
    axes = figure.subplots()
    show_rows(axes, [row.cpu() for row in rows], labels)
    return figure
