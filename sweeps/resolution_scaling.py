"""PSNR gap against N for growing images and networks.

Figure 15 and Table 1: UNets with 1, 2, 3 and 4 blocks on images of 20×20, 40×40, 80×80 and 160×160, N = 1 … 10⁵, two
disjoint subsets. The number of blocks follows the resolution. Without `dataset=` the images are C^α, drawn at 160×160
and averaged down, so that all sizes have one law; for the paper's:

    gahb-sweep launch resolution_scaling dataset=/data/img_align_celeba n_train=1,10,100,1000,10000,98000
    gahb-analyze scaling resolution_scaling

Cost: 48 trials of 10⁹ images (20×20, 40×40) or 2.5·10⁸ (80×80, 160×160), 4.3·10²⁰ FLOPs in all: `gahb-sweep plan
resolution_scaling` has the parts. Small variant, minutes on a laptop:

    gahb-sweep launch resolution_scaling --small

Expected: the gap falls with N at every resolution; larger images need more N to reach the same gap, but the step from
80×80 to 160×160 costs much less than that from 40×40 to 80×80.
"""

from collections.abc import Mapping
from typing import Any

from gahb.grids import grid
from gahb.trial import Trial

from .demo import PAPER, SHORT

FIGURES = "Figure 15, Table 1"

SMALL = {"resolution": (20, 40), "width": 16, "n_train": (1, 10, 100), **SHORT, "images": 20_000}


def trials(overrides: Mapping[str, Any] | None = None) -> list[Trial]:
    drawn = {"drawn_at": 160} if (overrides or {}).get("dataset", "c_alpha") in ("c_alpha", ["c_alpha"]) else {}
    return grid(
        {
            **PAPER,
            "dataset": "c_alpha",
            **drawn,
            "resolution": (20, 40, 80, 160),
            "n_train": (1, 10, 100, 1000, 10_000, 100_000),
            "subset": ("A", "B"),
        },
        overrides,
    )
