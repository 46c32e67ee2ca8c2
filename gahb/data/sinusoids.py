"""Sine waves of unit frequency, varying phase and intensity: a 2-dimensional cone (Figure 20).

    x(s, φ) = s·(1 + sin(2πt + φ))/2,    t ∈ [0, 1] across the columns, s ∈ (0, 1], φ ∈ [0, 2π).

Intensities are not negative, so the wave is raised by its amplitude. Multiples of an image stay in the set, which is a
cone of dimension 2 over a circle, curved along φ, in the span of 1, sin 2πt and cos 2πt; waves without the constant
would fill a flat plane. The tangent space is spanned by two orthogonal waves of unit frequency, a phase of π/2 apart,
of which one carries the constant: ∂x/∂s = (1 + sin(2πt + φ))/2 and ∂x/∂φ = s·cos(2πt + φ)/2.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from gahb.data.manifold import Manifold
from gahb.data.source import CHUNK


@dataclass(frozen=True)
class Sinusoids(Manifold):
    """One period of a sine across the image, raised to be nowhere negative."""

    name: ClassVar[str] = "sinusoids"
    dimension: ClassVar[int] = 2

    def parameters(self, resolution: int, index: int) -> NDArray[np.float64]:
        """Intensity and phase of the images of a chunk, (CHUNK, 2)."""
        rng = np.random.default_rng([0x51E5, index])
        return np.stack([1 - rng.uniform(0, 1, CHUNK), rng.uniform(0, 2 * np.pi, CHUNK)], axis=1)

    def draw(self, resolution: int, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        """The images at parameters (n, 2), (n, resolution, resolution) in [0, 1]."""
        intensity, phase = parameters.T[:, :, None]
        wave = np.sin(2 * np.pi * (np.arange(resolution) + 0.5) / resolution + phase)
        return np.repeat((intensity * (1 + wave) / 2)[:, None, :], resolution, axis=1)
