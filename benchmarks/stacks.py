"""Stacks of images for the benchmarks of searches."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from gahb.data.c_alpha import CAlpha
from gahb.data.manifold import CHUNK


def smooth_images(count: int, side: int) -> NDArray[np.uint8]:
    """The first C^α images of α = 2, (count, side, side), in 8 bits."""
    images = np.empty((count, side, side), np.uint8)

    def fill(start: int) -> None:
        place = images[start : start + CHUNK]
        place[:] = CAlpha(2.0).chunk(side, start // CHUNK)[: len(place)] >> 8

    with ThreadPoolExecutor() as threads:
        list(threads.map(fill, range(0, count, CHUNK)))
    return images
