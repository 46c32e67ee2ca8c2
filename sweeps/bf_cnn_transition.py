"""Train and test PSNR and pair similarity against N for BF-CNN.

Figures 11 and 12: BF-CNN with 21 layers on 40×40 faces, N = 1 … 10⁴, two disjoint subsets. Without `dataset=` the
images are C^α; for the paper's, of which CelebA-HQ is a folder or zip of images, and for Figures 13 and 14, which have
one N on 32×32 bedrooms:

    gahb-sweep launch bf_cnn_transition dataset=/data/celeba_hq
    gahb-sweep launch bf_cnn_transition dataset=/data/bedroom_lmdb limit=6e4 resolution=32 n_train=20000 --as rooms
    gahb-analyze pairs bf_cnn_transition
    gahb-analyze scaling bf_cnn_transition

Cost: 10 trials of 10⁹ images, 6.7·10¹⁹ FLOPs in all. Small variant, minutes on a laptop:

    gahb-sweep launch bf_cnn_transition --small

Expected: as for `transition`, so the change from memorising to generalising is not the UNet's own; the crossover lies
near N = 10³. Bedrooms at N = 20,000: the two models' samples are close to identical and far from the closest training
image.
"""

from collections.abc import Mapping
from typing import Any

from gahb.execution.analysis import Stated
from gahb.grids import grid
from gahb.trial import Trial

from .demo import PAPER, SHORT

FIGURES = "Figures 11, 12, 13, 14"

SMALL = {"resolution": 16, "layers": 7, "width": 16, "n_train": (1, 10, 100, 1000), **SHORT}

ANALYSES = [Stated("pairs"), Stated("pairs", {"beta": 1.0})]
"""Figures 12 and 14, and 13, whose samples have no noise injected."""


def trials(overrides: Mapping[str, Any] | None = None) -> list[Trial]:
    return grid(
        {
            **PAPER,
            "dataset": "c_alpha",
            "resolution": 40,
            "architecture": "bf_cnn",
            "n_train": (1, 10, 100, 1000, 10_000),
            "subset": ("A", "B"),
        },
        overrides,
    )
