"""Memorisation turns into generalisation, small enough for two CPU cores.

Figures 1, 2 and one curve of Figure 15 in miniature: C^α images with α = 2 at 16×16, a UNet with one block and 16
channels, N = 1 … 1024, two disjoint subsets.

    gahb-sweep launch demo
    gahb-analyze pairs demo
    gahb-analyze scaling demo

Cost: 12 trials of 19,200 images, about 4·10¹² FLOPs in all.
Expected: train and test PSNR 12 dB apart at N = 1 and equal to 0.2 dB from N = 64 on; the similarity of samples of A
and B from the same noise beyond that from mismatched noise ("excess") rises from 0 to 0.9. The transition sits at
N = 4 … 64 because images and network are small.
"""

from collections.abc import Mapping
from typing import Any

from gahb.grids import grid
from gahb.trial import Trial

FIGURES = "Figures 1, 2, 15 (miniature)"

SMALL: dict[str, Any] = {}
"""It is small."""

PAPER = {"precision": "tf32"}
"""What the paper's trainings ran in: torch's default for convolutions in float32 on the GPUs of their time."""

SHORT = {
    "images": 30_000,
    "batch_size": 32,
    "learning_rate": 2e-3,
    "schedule": "cosine",
    "n_test": 256,
    "precision": "float32",
}
"""The training of the small variants, minutes on a laptop."""


def trials(overrides: Mapping[str, Any] | None = None) -> list[Trial]:
    return grid(
        {
            "dataset": "c_alpha",
            "resolution": 16,
            "architecture": "unet",
            "width": 16,
            "n_test": 128,
            "images": 600 * 32,
            "batch_size": 32,
            "learning_rate": 2e-3,
            "schedule": "cosine",
            "n_train": (1, 4, 16, 64, 256, 1024),
            "subset": ("A", "B"),
        },
        overrides,
    )
