"""Sine waves of one frequency, a cone of 2 dimensions.

Figure 20: BF-CNN on 40×40 sine waves of unit frequency, varying phase and intensity, N = 10⁵.

    gahb-sweep launch sinusoids

Cost: 1 trial of 10⁹ images, 6.7·10¹⁸ FLOPs in all. Small variant, minutes on a laptop:

    gahb-sweep launch sinusoids --small

Expected: at small noise the optimum projects on two waves a quarter of a period apart. The eigenvalues of the Jacobian
decay more slowly than that, along harmonics. The small variant ends at a test PSNR of 23.5 dB.
"""

from collections.abc import Mapping
from typing import Any

from gahb.execution.analysis import Stated
from gahb.grids import grid
from gahb.trial import Trial

from .demo import PAPER, SHORT

FIGURES = "Figure 20"

SMALL = {"resolution": 16, "layers": 7, "width": 16, "n_train": 2000, **SHORT}

ANALYSES = [Stated("basis", {"sigma": 0.08, "vectors": "0:9"}), Stated("dimension")]
"""Figure 20."""


def trials(overrides: Mapping[str, Any] | None = None) -> list[Trial]:
    return grid(
        {**PAPER, "dataset": "sinusoids", "resolution": 40, "architecture": "bf_cnn", "n_train": 100_000}, overrides
    )
