"""One image at varying intensity, a manifold of dimension 1.

Figure 19: BF-CNN on multiples of one 40×40 image, N = 10⁵. The paper's image is a face; without `base=` it is a
C^α image.

    gahb-sweep launch single_image_ray base=/data/img_align_celeba/000001.jpg

Cost: 1 trial of 10⁹ images, 6.7·10¹⁸ FLOPs in all. Small variant, minutes on a laptop:

    gahb-sweep launch single_image_ray --small

Expected: the first eigenvector of the Jacobian is the image, with eigenvalue 1; the next ones are 2D harmonics with
eigenvalues above 0, where the optimum has 0. The PSNR curve has slope 1 over most noise levels and lies below the
optimal intercept 10·log₁₀ d, 32 dB at 40×40 (37.6 dB where PSNR is averaged over images, as `curves` has it).
"""

from collections.abc import Mapping
from typing import Any

from gahb.execution.analysis import Stated
from gahb.grids import grid
from gahb.trial import Trial

from .demo import PAPER, SHORT

FIGURES = "Figure 19"

SMALL = {"resolution": 16, "layers": 7, "width": 16, "n_train": 2000, **SHORT}

ANALYSES = [Stated("basis", {"sigma": 0.04, "vectors": "0:4"}), Stated("dimension")]
"""Figure 19: five vectors, of which the first is the image."""


def trials(overrides: Mapping[str, Any] | None = None) -> list[Trial]:
    return grid({**PAPER, "dataset": "ray", "resolution": 40, "architecture": "bf_cnn", "n_train": 100_000}, overrides)
