"""Pictures of single trials, and the look that all figures share: from a tidy table to a matplotlib Figure."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from skimage.util import montage
from torch import Tensor

from gahb.denoising import noise
from gahb.denoising.psnr import INPUT_PSNR, SIGMAS
from gahb.training.loop import Trained

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
"""Okabe and Ito's palette, told apart by colour-blind readers too. A is the first, B the second."""

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
    """Held-out images (n, 1, H, W) uint8, noisy at SHOWN_PSNR and denoised: a column an image."""
    device = next(denoiser.parameters()).device
    clean = images.to(device).float() / 255
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


def show_rows(axes, rows: Sequence[Tensor], labels: Sequence[str]) -> None:  # type: ignore[no-untyped-def]
    """Rows of equally many images (n, 1, H, W) in [0, 1] as one picture, a label before each row."""
    tiles: NDArray[np.float64] = torch.cat([row.squeeze(1) for row in rows]).clamp(0, 1).double().numpy()
    side = tiles.shape[-1] + 1
    picture = montage(tiles, grid_shape=(len(rows), len(rows[0])), padding_width=1, fill=1.0)
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_yticks([1 + side * (i + 0.5) for i in range(len(rows))], labels)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def save(figure: Figure, path: Path) -> None:
    """Write a figure at 160 dots per inch."""
    figure.savefig(path, dpi=160, bbox_inches="tight")
