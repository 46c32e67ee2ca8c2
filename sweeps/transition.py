"""Train and test PSNR and pair similarity against N, at one resolution.

Figures 1, 2 and 7: a UNet with 3 blocks on 80×80 faces, and Figures 9 and 10: on 80×80 bedrooms, N = 1 … 10⁵, two
disjoint subsets. Without `dataset=` the images are C^α, so that the sweep runs anywhere; for the paper's:

    gahb-sweep launch transition dataset=/data/img_align_celeba n_train=1,10,100,1000,10000,98000 --as faces
    gahb-sweep launch transition dataset=/data/bedroom_lmdb limit=3e5 --as rooms
    gahb-analyze pairs faces
    gahb-analyze scaling faces

(CelebA without near-duplicates has about 198,650 images, so two subsets of 10⁵ do not fit beside a held-out set. Of
LSUN's three million bedrooms 300,000 are read.)

Cost: 12 trials of 2.5·10⁸ images, 6·10¹⁹ FLOPs in all. Small variant, minutes on a laptop:

    gahb-sweep launch transition --small

Expected: at N = 1 and 10 the train curve has unit slope and test PSNR is poor at every noise level; at N = 10⁵ train
and test coincide and both models of a pair draw nearly the same images. The crossover lies near N = 10³ … 10⁴.
"""

from collections.abc import Mapping
from typing import Any

from gahb.execution.analysis import Stated
from gahb.grids import grid
from gahb.trial import Trial

from .demo import PAPER, SHORT

FIGURES = "Figures 1, 2, 7, 9, 10"

SMALL = {"resolution": 20, "width": 16, "n_train": (1, 10, 100, 1000), **SHORT}

ANALYSES = [Stated("basis", {"sigma": 0.15, "vectors": "5:245:12"}), Stated("originality")]
"""Figure 3: every λ, and every twelfth vector; Figure 10: the patches of which samples consist."""


def trials(overrides: Mapping[str, Any] | None = None) -> list[Trial]:
    return grid(
        {
            **PAPER,
            "dataset": "c_alpha",
            "resolution": 80,
            "n_train": (1, 10, 100, 1000, 10_000, 100_000),
            "subset": ("A", "B"),
        },
        overrides,
    )
