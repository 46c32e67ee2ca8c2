"""Image files at a resolution, and their thumbnails, by all cores."""

import os
from collections.abc import Sequence
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gahb import progress
from gahb.data.cropping import THUMBNAIL, resize, thumbnail
from gahb.data.processes import processes
from gahb.data.source import in_threads
from gahb.errors import UserError

BLOCK = 32
"""Images that are given to a process at a time."""

WORTH_A_PROCESS = 500
"""Images that take about as long as a process takes to start."""


class Decoder(Protocol):
    """What gives the images of some files; it can be pickled."""

    @property
    def path(self) -> str:
        """Where they are."""

    @property
    def unsafe(self) -> bool:
        """Whether a damaged file may end the process that reads it."""

    def square(self, key: str, frame: str) -> NDArray[np.float32]:
        """The square of an image, 0…255, (side, side), or (3, side, side) in colour. Raises UserError."""


def decode(
    decoder: Decoder,
    keys: Sequence[str],
    frame: str,
    images: NDArray[np.uint8],
    thumbnails: NDArray[np.float32],
    cores: int | None = None,
) -> None:
    """Decode, crop and resize images, each into its row.

    Args:
        decoder: of the files.
        keys: of the images.
        frame: the crop, as `square_of` takes it.
        images: (len(keys), …, resolution, resolution), to be filled.
        thumbnails: (len(keys), THUMBNAIL, THUMBNAIL), to be filled.
        cores: how many processes; as many as there are cores and work for if left out.

    Raises:
        UserError: of the first image that cannot be used, or is smaller than the resolution.
    """
    cores = cores or max(1, min(os.cpu_count() or 1, len(keys) // WORTH_A_PROCESS))
    block_of, reads = partial(_block, decoder, frame, images.shape[1:]), f"dataset={decoder.path}: a file in it"
    with (
        processes(block_of, cores, reads, apart=decoder.unsafe) as decoded,
        progress.bar("reading images", len(keys)) as advance,
    ):

        def fill(index: int) -> None:
            block = slice(index * BLOCK, (index + 1) * BLOCK)
            images[block], thumbnails[block] = decoded(keys[block])
            advance(len(keys[block]))

        in_threads(fill, -(-len(keys) // BLOCK), cores)


def one_square(decoder: Decoder, key: str, frame: str) -> NDArray[np.float32]:
    """The square of one image; see `decode`."""
    with processes(
        partial(_square, decoder, frame), 1, f"dataset={decoder.path}: a file in it", apart=decoder.unsafe
    ) as decoded:
        square: NDArray[np.float32] = decoded(key)
        return square


def _square(decoder: Decoder, frame: str, key: str) -> NDArray[np.float32]:
    return decoder.square(key, frame)


def _block(
    decoder: Decoder, frame: str, shape: tuple[int, ...], keys: Sequence[str]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    images, resolution = np.empty((len(keys), *shape), np.uint8), shape[-1]
    thumbnails = np.empty((len(keys), THUMBNAIL, THUMBNAIL), np.float32)
    for row, key in enumerate(keys):
        square = decoder.square(key, frame)
        if square.shape[-1] < resolution:
            raise UserError(
                f"resolution={resolution}: {key} of {decoder.path} is only {square.shape[-1]} pixels wide after the "
                "crop"
            )
        images[row], thumbnails[row] = resize(square, resolution), thumbnail(square)
    return images, thumbnails
