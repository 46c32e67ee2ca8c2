"""C^α images whose contour is less regular than their background.

Figure 17: contours of α₁ = 1.5, 2 and 4 between backgrounds of α₂ = 8. The paper names neither network nor size for
this figure; here they are those of Figure 4, a UNet with 3 blocks on 80×80 images, N = 10⁵.

    gahb-sweep launch contour_regularity

Cost: 3 trials of 2.5·10⁸ images, 1.5·10¹⁹ FLOPs in all. Small variant, minutes on a laptop:

    gahb-sweep launch contour_regularity --small

Expected: with growing α₁ the harmonics along the contour become less localised, the coefficients of an image decay
faster, and the denoising error falls. The small variant ends at a test PSNR of 19.4, 19.7 and 19.8 dB.
"""

from collections.abc import Mapping
from typing import Any

from gahb.execution.analysis import Stated
from gahb.grids import grid
from gahb.trial import Trial

from .demo import PAPER, SHORT

FIGURES = "Figure 17"

SMALL = {"resolution": 20, "width": 16, "n_train": 2000, **SHORT}

ANALYSES = [Stated("basis", {"sigma": 0.2, "vectors": "0:9"}, together=True)]
"""Figure 17: three images, ten vectors each."""


def trials(overrides: Mapping[str, Any] | None = None) -> list[Trial]:
    return grid(
        {
            **PAPER,
            "dataset": "c_alpha",
            "alpha": (1.5, 2.0, 4.0),
            "background_alpha": 8.0,
            "resolution": 80,
            "n_train": 100_000,
        },
        overrides,
    )
