"""One image at varying intensity: a ray from the origin, a manifold of dimension 1 (Figure 19).

    x(s) = s·x₁,    s ~ U(0, 1].

The tangent space is spanned by x₁/‖x₁‖. The best denoiser projects on it, so the optimum has MSE σ² an image and a
PSNR curve of slope 1 and intercept 10·log₁₀ d. At 16 bits a ray holds 65,535 different images at most, so
disjoint subsets of it share some: it shows a basis, no transition.
"""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gahb.data.c_alpha import CAlpha
from gahb.data.cropping import resize
from gahb.data.decoding import one_square
from gahb.data.disks import Disks
from gahb.data.image_files import ImageFiles
from gahb.data.manifold import Manifold
from gahb.data.source import CHUNK
from gahb.errors import UserError

BASES: dict[str, CAlpha | Disks] = {source.name: source for source in (CAlpha(2.0), Disks())}
"""Sequences whose first image may be x₁."""


@dataclass(frozen=True)
class ImageRay(Manifold):
    """Multiples of one image.

    Args:
        base: where x₁ is the first image: "c_alpha" (α = 2), "disks", or the path of an image or of several. The path
            is not part of a trial's signature; the image is.
    """

    name: ClassVar[str] = "ray"
    dimension: ClassVar[int] = 1
    base: str = "c_alpha"

    def law(self) -> dict[str, Any]:
        """What decides the images besides resolution and position.

        Raises:
            UserError: a base that is no image.
        """
        if self.base in BASES:
            base = BASES[self.base].law()
        else:
            square = self._square
            base = {"sha256": hashlib.sha256(square.tobytes()).hexdigest(), "side": len(square), "resize": "bicubic"}
        return {"law": self.name, "version": self.version, "base": base}

    @cached_property
    def _square(self) -> NDArray[np.float32]:
        """The image from disk, gray and cropped."""
        try:
            source = ImageFiles(self.base)
            return np.ascontiguousarray(one_square(replace(source), source.keys[0], source.frame))
        except UserError as error:
            reason = str(error).partition(": ")[2]
            raise UserError(f"base={self.base}: {reason} (known names: {', '.join(BASES)})") from None

    def _first(self, resolution: int) -> NDArray[np.float64]:
        """x₁, (resolution, resolution) in [0, 1]."""
        if self.base in BASES:
            return BASES[self.base].chunk(resolution, 0)[0] / 0xFFFF
        if len(self._square) < resolution:
            raise UserError(f"resolution={resolution}: {self.base} is only {len(self._square)} pixels wide")
        return resize(self._square, resolution) / 255

    def parameters(self, resolution: int, index: int) -> NDArray[np.float64]:
        """Intensity of the images of a chunk, (CHUNK, 1)."""
        return 1 - np.random.default_rng([0x0A11, index]).uniform(0, 1, (CHUNK, 1))

    def draw(self, resolution: int, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        """The images at parameters (n, 1), (n, resolution, resolution) in [0, 1]."""
        return parameters[:, :, None] * self._first(resolution)
