"""Slope of the PSNR curve against the regularity of C^α images.

Figure 4: UNets with 3 blocks on 80×80 images, and Figure 16: BF-CNNs on 40×40 images, N = 10⁵, α = 1 … 5. The models
of α = 2, 3 and 4 also have the bases of Figures 4, 16 and 18. `architecture=` chooses a family.

    gahb-sweep launch c_alpha_slopes

Cost: 10 trials of 2.5·10⁸ images (80×80) or 10⁹ (40×40), 5.9·10¹⁹ FLOPs in all. Small variant, minutes on a laptop:

    gahb-sweep launch c_alpha_slopes --small

Expected: test PSNR grows with input PSNR at a slope near the optimal α/(α+1). The paper finds 0.46, 0.61, 0.75 and 0.83
for α = 1, 2, 3 and 5, where 0.5, 0.67, 0.75 and 0.83 are optimal. Basis vectors are harmonics along the contour and
within the two regions. The small variant, too short for those slopes, ends at a test PSNR of 17.4, 19.2, 19.8, 19.9 and
19.8 dB.
"""

from collections.abc import Mapping
from typing import Any

from gahb.execution.analysis import Stated
from gahb.grids import union
from gahb.trial import Trial

from .demo import PAPER, SHORT

FIGURES = "Figures 4, 16, 18"

SMALL = {"architecture": "unet", "resolution": 20, "width": 16, "n_train": 2000, **SHORT}

ANALYSES = [
    Stated("curves", {"fit": (20.0, 34.0)}),
    Stated("basis", of={"alpha": 4.0, "architecture": "unet"}),
    Stated("basis", {"vectors": "0:9"}, of={"alpha": 4.0, "architecture": "bf_cnn"}),
    Stated("basis", {"vectors": "0:9"}, of={"alpha": 2.0, "architecture": "bf_cnn"}),
    Stated("basis", of={"alpha": 3.0, "architecture": "unet"}),
]
"""Figures 4, 16 (α = 4 and 2) and 18, for which the paper names no σ; slopes end at the figure's 34 dB."""


def trials(overrides: Mapping[str, Any] | None = None) -> list[Trial]:
    shared = {**PAPER, "dataset": "c_alpha", "alpha": (1.0, 2.0, 3.0, 4.0, 5.0), "n_train": 100_000}
    return union(
        [
            {**shared, "architecture": "unet", "resolution": 80},
            {**shared, "architecture": "bf_cnn", "resolution": 40},
        ],
        overrides,
    )
