"""Disks of varying position, radius, foreground and background intensity: a 5-dimensional manifold (Figure 5).

The edge is antialiased over one pixel, x = b + (f - b)·clip(r - ρ + 1/2, 0, 1) with ρ the distance to the centre,
so the image is a differentiable function of the five parameters and has a tangent space.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from gahb.data.manifold import Manifold
from gahb.data.source import CHUNK


@dataclass(frozen=True)
class Disks(Manifold):
    """Disks that lie wholly inside the image, radius between 1/16 and 3/8 of its side."""

    name: ClassVar[str] = "disks"
    dimension: ClassVar[int] = 5

    def parameters(self, resolution: int, index: int) -> NDArray[np.float64]:
        """Centre (row, column) and radius in pixels, foreground and background of the images of a chunk, (CHUNK, 5)."""
        rng = np.random.default_rng([0xD15C5, index])
        radius = rng.uniform(1 / 16, 3 / 8, CHUNK) * resolution
        centre = radius + rng.uniform(0, 1, (2, CHUNK)) * (resolution - 2 * radius)
        return np.stack([*centre, radius, *rng.uniform(0, 1, (2, CHUNK))], axis=1)

    def draw(self, resolution: int, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        """The images at parameters (n, 5), (n, resolution, resolution) in [0, 1]."""
        row, column, radius, foreground, background = parameters.T[..., None, None]
        pixel = np.arange(resolution) + 0.5
        distance = np.hypot(pixel[:, None] - row, pixel - column)
        return background + (foreground - background) * np.clip(radius - distance + 0.5, 0, 1)
