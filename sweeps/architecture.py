"""The transition against depth, width and receptive field of the network.

An ablation of Figures 2 and 12: UNets with 1, 2 and 3 blocks of width 32 and 64, BF-CNNs with 5, 11 and 21 layers and
transformers of depth 2, 4 and 8, on 40×40 images, N = 10 … 10⁴, two disjoint subsets. `architecture=` chooses a family;
`blocks=`, `layers=` and `depth=` apply to their own, `width=` and the other settings to all.

    gahb-sweep launch architecture
    gahb-sweep launch architecture architecture=bf_cnn layers=5,21
    gahb-analyze pairs architecture

Cost: 96 trials of 10⁹ images, 2.2·10²⁰ FLOPs in all. Small variant, minutes on a laptop:

    gahb-sweep launch architecture --small

Expected: every network passes from memorising to generalising; one with more parameters or a larger receptive field
needs more images. `gahb-sweep plan architecture` shows both; BF-CNN with 21 layers sees 43×43 pixels, a UNet with 2
blocks 44×44 with 2.6 times the parameters. A transformer of depth 4 has as many parameters as that UNet and sees the
whole image: its receptive field is infinite, which JSON writes as null.
"""

from collections.abc import Mapping
from typing import Any

from gahb.grids import union
from gahb.trial import Trial

from .demo import PAPER, SHORT

FIGURES = "Figures 2, 12 (ablation)"

SMALL = {
    "resolution": 16,
    "blocks": (1, 2),
    "layers": (5, 7),
    "depth": 2,
    "patch": 2,
    "width": 16,
    "n_train": (4, 64),
    **SHORT,
}


def trials(overrides: Mapping[str, Any] | None = None) -> list[Trial]:
    shared = {
        **PAPER,
        "dataset": "c_alpha",
        "resolution": 40,
        "n_train": (10, 100, 1000, 10_000),
        "subset": ("A", "B"),
    }
    return union(
        [
            {**shared, "architecture": "unet", "blocks": (1, 2, 3), "width": (32, 64)},
            {**shared, "architecture": "bf_cnn", "layers": (5, 11, 21)},
            {**shared, "architecture": "transformer", "depth": (2, 4, 8)},
        ],
        overrides,
    )
