"""Data sets that are manifolds, x(p) for parameters p in R^m, and the tangent space at each of their images.

    T(p) = span { ∂x/∂p₁, …, ∂x/∂p_m },    ∂x/∂p_j ≈ (x(p + h·e_j) - x(p - h·e_j)) / 2h.

For noise much weaker than the manifold's radius of curvature the best denoiser projects on T, so its Jacobian has m
eigenvalues 1 and the rest 0, and its MSE is m·σ² an image (§3.2, appendix C.2).
"""

import numpy as np
from numpy.typing import NDArray

from gahb.data.disks import Disks
from gahb.data.image_ray import ImageRay
from gahb.data.sinusoids import Sinusoids

Manifold = Disks | Sinusoids | ImageRay

STEP = 1e-4
"""h, in the parameters' own units: pixels, radians, intensities."""


def parameters(source: Manifold, resolution: int, row: int) -> NDArray[np.float64]:
    """The parameters of image `row` of the sequence, (m,)."""
    size = len(source.parameters(resolution, 0))
    return source.parameters(resolution, row // size)[row % size]


def tangents(source: Manifold, resolution: int, at: NDArray[np.float64]) -> NDArray[np.float64]:
    """The derivatives ∂x/∂p_j at parameters (m,): (m, resolution, resolution)."""
    steps = STEP * np.eye(len(at))
    return (source.draw(resolution, at + steps) - source.draw(resolution, at - steps)) / (2 * STEP)


def tangent_space(source: Manifold, resolution: int, at: NDArray[np.float64]) -> NDArray[np.float64]:
    """An orthonormal basis of the tangent space at parameters (m,): (m, resolution, resolution)."""
    vectors = tangents(source, resolution, at)
    basis, _ = np.linalg.qr(vectors.reshape(len(vectors), -1).T)
    return basis.T.reshape(vectors.shape)
