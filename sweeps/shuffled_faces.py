"""Images whose pixels one permutation has shuffled, beside the same images unshuffled.

Figure 21: a UNet with 3 blocks on 80×80 faces, N = 10⁵. Both data sets hold the same images in the same subsets, and
the best denoisers of both are equally good. Without `dataset=` the images are C^α; for the paper's:

    gahb-sweep launch shuffled_faces dataset=/data/img_align_celeba n_train=98000

(N is a little smaller because a second subset and the held-out set are set aside.)

Cost: 2 trials of 2.5·10⁸ images, 1.0·10¹⁹ FLOPs in all. Small variant, minutes on a laptop:

    gahb-sweep launch shuffled_faces --small

Expected: on shuffled images test PSNR is much lower and its slope much smaller; the eigenvalues of the Jacobian decay
more slowly. Put back in place, its eigenvectors show harmonics adapted to the images, noisier than the unshuffled ones.
The small variant ends at a test PSNR of 19.2 dB unshuffled and 13.6 dB shuffled.
"""

from collections.abc import Mapping
from typing import Any

from gahb.execution.analysis import Stated
from gahb.grids import grid
from gahb.trial import Trial

from .demo import PAPER, SHORT

FIGURES = "Figure 21"

SMALL = {"resolution": 20, "width": 16, "n_train": 2000, **SHORT}

ANALYSES = [Stated("basis", {"sigma": 0.3, "vectors": "5:53:12"}, together=True)]
"""Figure 21: five vectors of the denoiser of shuffled images and five of the other's, all with the pixels in place."""


def trials(overrides: Mapping[str, Any] | None = None) -> list[Trial]:
    return grid(
        {**PAPER, "dataset": "c_alpha", "resolution": 80, "n_train": 100_000, "shuffled": (False, True)},
        overrides,
    )
