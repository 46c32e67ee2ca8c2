"""One image at varying intensity: a ray from the origin, a manifold of dimension 1 (Figure 19).

    x(s) = s·x₁,    s ~ U(0, 1].

The tangent space is spanned by x₁/‖x₁‖. The best denoiser projects on it, so the optimum has MSE σ² an image and a
PSNR curve of slope 1 and intercept 10·log₁₀ d. At 8 bits a ray holds some thousands of different images, so disjoint
subsets of it share some: it shows a basis, no transition.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gahb.data.c_alpha import CAlpha
from gahb.data.disks import Disks
from gahb.data.manifold import CHUNK, Manifold
from gahb.errors import UserError

BASES: dict[str, CAlpha | Disks] = {source.name: source for source in (CAlpha(2.0), Disks())}
"""Sequences whose first image may be x₁."""


@dataclass(frozen=True)
class ImageRay(Manifold):
    """Multiples of one synthetic image.

    Args:
        base: the sequence whose first image is x₁: "c_alpha" (α = 2) or "disks".
    """

    name: ClassVar[str] = "ray"
    base: str = "c_alpha"

    def __post_init__(self) -> None:
        if self.base not in BASES:
            raise UserError(f"base={self.base}: must be one of {', '.join(BASES)}")

    def law(self) -> dict[str, Any]:
        """What decides the images besides resolution and position."""
        return {"law": self.name, "version": 1, "base": BASES[self.base].law()}

    def parameters(self, resolution: int, index: int) -> NDArray[np.float64]:
        """Intensity of the images of a chunk, (CHUNK, 1)."""
        return 1 - np.random.default_rng([0x0A11, index]).uniform(0, 1, (CHUNK, 1))

    def draw(self, resolution: int, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        """The images at parameters (n, 1), (n, resolution, resolution) in [0, 1]."""
        return parameters[:, :, None] * (BASES[self.base].chunk(resolution, 0)[0] / 255)
