"""Disks, a curved manifold of 5 dimensions.

Figure 5: a UNet with 3 blocks on 80×80 disks of varying position, radius, foreground and background, N = 10⁵.

    gahb-sweep launch disks

Cost: 1 trial of 2.5·10⁸ images, 5.0·10¹⁸ FLOPs in all. Small variant, minutes on a laptop:

    gahb-sweep launch disks --small

Expected: about five eigenvalues of the Jacobian near 1 (from 1.18 down in the paper), whose eigenvectors span the
tangent space, then a fall to 0.67, 0.55, 0.39, … along harmonics that the optimum does not have. The PSNR slope stays
below the optimal 1 at small noise. The small variant ends at a test PSNR of 21.5 dB.
"""

from collections.abc import Mapping
from typing import Any

from gahb.execution.analysis import Stated
from gahb.grids import grid
from gahb.trial import Trial

from .demo import PAPER, SHORT

FIGURES = "Figure 5"

SMALL = {"resolution": 20, "width": 16, "n_train": 2000, **SHORT}

ANALYSES = [Stated("basis", {"sigma": 0.04, "vectors": "0:9"}), Stated("dimension")]
"""Figure 5: ten vectors, of which five match the tangent space."""


def trials(overrides: Mapping[str, Any] | None = None) -> list[Trial]:
    return grid({**PAPER, "dataset": "disks", "resolution": 80, "n_train": 100_000}, overrides)
