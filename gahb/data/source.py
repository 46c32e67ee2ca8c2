"""What a source of images offers: the contract behind `dataset=`."""

import math
import os
import shutil
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from gahb import progress
from gahb.config_fields import flatten
from gahb.errors import UserError
from gahb.storage.base import Storage

CHUNK = 64
"""Images drawn at once. Part of the law: chunk c is a function of (seed, c)."""

WRITTEN_AT_ONCE = 8
"""Chunks after which the disk begins to write them."""


@dataclass(frozen=True)
class Rendered:
    """A source's images at one resolution.

    Args:
        images: (count, resolution, resolution), or (count, 3, resolution, resolution) in colour, uint8 or
            uint16; a file of the folder that `render` was given.
        facts: what the manifest shall say of them; `found` among them, the images that there were.
        keys: what names the image of each row; None where the row does.
        groups: the number of the group of each image, (count,); None where each is its own.
    """

    images: NDArray[np.integer[Any]]
    facts: dict[str, Any]
    keys: list[str] | None = None
    groups: NDArray[np.int64] | None = None


class Source(ABC):
    """Where images come from; a frozen dataclass, whose fields are the keys that `dataset=<name>` adds to a trial.

    Fields are bool, int, float or str, have defaults, and are checked in `__post_init__`, which raises UserError.
    """

    name: ClassVar[str]
    bits: ClassVar[int] = 8
    """In which an intensity is stored, 8 or 16."""

    @classmethod
    def of(cls, dataset: str, **options: Any) -> Self:
        """The source that `dataset=` and the other keys describe."""
        return cls(**options)

    @property
    def label(self) -> str:
        """A short name for tables and runs."""
        return self.name

    @property
    def image_channels(self) -> int:
        """1 of gray images, 3 of those in colour: red, green and blue."""
        return 1

    def check(self, resolution: int) -> None:  # noqa: B027  # most have every resolution
        """Raise UserError if there are no images of this resolution."""

    @property
    def count(self) -> int | None:
        """Number of images that there are; None where there is no end of them."""
        return None

    @abstractmethod
    def recipe(self, resolution: int, storage: Storage) -> dict[str, Any]:
        """Everything that decides the images, as JSON; its hash names the prepared data set.

        Raises:
            UserError: what the source is made of is not there.
        """

    @abstractmethod
    def render(self, resolution: int, needed: int, work: Path, say: Callable[[str], None]) -> Rendered:
        """The images; of an endless source the first `needed`, which do not depend on how many are needed.

        Args:
            resolution: pixels a side.
            needed: images that an endless source makes; any other gives all it has.
            work: a folder, where the images go to a file (`new_images`).
            say: takes a line of progress.

        Raises:
            UserError: an image that cannot be used.
        """


class Synthetic(Source):
    """Images that are drawn, without end, in chunks of CHUNK, each a function of its number.

    `version` is that of the law: raise it when the code draws other images.
    """

    version: ClassVar[int] = 1

    def law(self) -> dict[str, Any]:
        """What decides the images besides resolution and position."""
        return {"law": self.name, "version": self.version, **flatten(self)}

    @abstractmethod
    def chunk(self, resolution: int, index: int) -> NDArray[np.integer[Any]]:
        """Images index·CHUNK … (index+1)·CHUNK - 1 of the endless sequence, (CHUNK, resolution, resolution), or
        (CHUNK, 3, resolution, resolution) in colour, of the type that `bits` says."""

    def recipe(self, resolution: int, storage: Storage) -> dict[str, Any]:
        return {**self.law(), "resolution": resolution}

    def render(self, resolution: int, needed: int, work: Path, say: Callable[[str], None]) -> Rendered:
        say(f"synthesising {needed} {self.name} images at {resolution}×{resolution}")
        images = new_images(work, needed, resolution, channels=self.image_channels, bits=self.bits)
        shape = CHUNK, *images.shape[1:]

        def fill(index: int) -> None:
            place = images[index * CHUNK : (index + 1) * CHUNK]
            chunk = self.chunk(resolution, index)
            if chunk.shape != shape or chunk.dtype != images.dtype:
                raise UserError(
                    f"dataset={self.name}: chunk({resolution}, {index}) gave {chunk.dtype} {chunk.shape} and not "
                    f"{images.dtype} {shape}"
                )
            place[:] = chunk[: len(place)]
            advance(len(place))
            if index % WRITTEN_AT_ONCE == WRITTEN_AT_ONCE - 1:
                write_through(work / "images.npy")

        with progress.bar("drawing images", needed) as advance:
            in_threads(fill, -(-needed // CHUNK), 1 + (os.cpu_count() or 1))  # one may wait for the disk
        return Rendered(images, {"found": needed})


def in_threads(function: Callable[[int], None], count: int, threads: int) -> None:
    """Call a function with 0 … count - 1, in so many threads, a few calls ahead of the first that has not
    ended. Raises what the first call raises that fails; calls that have not begun are left out then."""
    ahead, waiting = 4 * threads, deque[Future[None]]()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for number in range(count):
                waiting.append(pool.submit(function, number))
                if len(waiting) > ahead:
                    waiting.popleft().result()
            while waiting:
                waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def write_through(file: Path) -> None:
    """Wait until the disk has what was written into a file, mapped or not."""
    with file.open("rb+") as stream:
        os.fsync(stream.fileno())


def new_images(
    work: Path, count: int, resolution: int, file: str = "images.npy", *, channels: int = 1, bits: int = 8
) -> Any:
    """A file in a folder for so many images, memory-mapped, (count, resolution, resolution), or (count, 3,
    resolution, resolution) in colour, uint8 or uint16.

    Raises:
        UserError: the disk has no room for it.
    """
    shape = (count, *((channels,) if channels > 1 else ()), resolution, resolution)
    free, size = shutil.disk_usage(work).free, math.prod(shape) * bits // 8
    if size > free:  # to write into a mapped file on a full disk ends the process
        raise UserError(
            f"{count} images of {resolution}×{resolution} take {size / 1e9:.3g} GB; {free / 1e9:.3g} are free"
        )
    return np.lib.format.open_memmap(work / file, mode="w+", dtype=f"u{bits // 8}", shape=shape)
