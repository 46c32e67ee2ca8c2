"""One permutation of the pixels, common to all images of a resolution (Figure 21).

    (Px)_i = x_{π(i)},    (P⁻¹x)_i = x_{π⁻¹(i)},    π a function of the resolution alone.

White noise is white in any order of the pixels, so x ↦ P f(P⁻¹x) denoises shuffled images as well as f denoises the
others: whatever a network loses on them is due to its own preference for neighbours.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def permutation(resolution: int) -> NDArray[np.int64]:
    """π on the pixels in row-major order, (resolution²,)."""
    return np.random.default_rng([0x5AFF1E, resolution]).permutation(resolution**2)


def shuffle(images: NDArray[Any]) -> NDArray[Any]:
    """Px for images (…, side, side)."""
    return _reorder(images, permutation(images.shape[-1]))


def unshuffle(images: NDArray[Any]) -> NDArray[Any]:
    """P⁻¹x for images (…, side, side): what to show of shuffled images."""
    return _reorder(images, np.argsort(permutation(images.shape[-1])))


def _reorder(images: NDArray[Any], order: NDArray[np.int64]) -> NDArray[Any]:
    return images.reshape(*images.shape[:-2], -1)[..., order].reshape(images.shape)
