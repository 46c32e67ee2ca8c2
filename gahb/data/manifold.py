"""A synthetic set that is a manifold, x(p) for parameters p in R^m, and the tangent space at each of its images.

    T(p) = span { ∂x/∂p₁, …, ∂x/∂p_m },    ∂x/∂p_j ≈ (x(p + h·e_j) - x(p - h·e_j)) / 2h.

For noise much weaker than the manifold's radius of curvature the best denoiser projects on T, so its Jacobian has m
eigenvalues 1 and the rest 0, and its MSE is m·σ² an image (§3.2, appendix C.2).
"""

from abc import abstractmethod
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from gahb.data.source import CHUNK, Synthetic

STEP = 1e-4
"""h, in the parameters' own units: pixels, radians, intensities."""


class Manifold(Synthetic):
    """Images that are a differentiable function of m parameters; `dimension` is m."""

    version: ClassVar[int] = 2
    bits: ClassVar[int] = 16
    dimension: ClassVar[int]

    @abstractmethod
    def parameters(self, resolution: int, index: int) -> NDArray[np.float64]:
        """The parameters of a chunk's images, (CHUNK, m)."""

    @abstractmethod
    def draw(self, resolution: int, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        """The images at parameters (n, m): (n, resolution, resolution) in [0, 1]."""

    def chunk(self, resolution: int, index: int) -> NDArray[np.uint16]:
        """Images index·CHUNK … (index+1)·CHUNK - 1 of the endless sequence, (CHUNK, resolution, resolution)."""
        return np.rint(0xFFFF * self.draw(resolution, self.parameters(resolution, index))).astype(np.uint16)

    def parameters_of(self, resolution: int, row: int) -> NDArray[np.float64]:
        """The parameters of image `row` of the sequence, and so of a prepared data set: (m,)."""
        return self.parameters(resolution, row // CHUNK)[row % CHUNK]

    def tangents(self, resolution: int, row: int) -> NDArray[np.float64]:
        """The derivatives ∂x/∂p_j at an image as columns, (d, m) with d = resolution²."""
        at = self.parameters_of(resolution, row)
        steps = STEP * np.eye(len(at))
        change = self.draw(resolution, at + steps) - self.draw(resolution, at - steps)
        return change.reshape(len(at), -1).T / (2 * STEP)

    def tangent_space(self, resolution: int, row: int) -> NDArray[np.float64]:
        """An orthonormal basis of the tangent space at an image as columns, (d, m)."""
        return np.linalg.qr(self.tangents(resolution, row))[0]
