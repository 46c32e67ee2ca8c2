"""A data set: a source's images at one resolution, prepared once, cached with a manifest, named by a hash.

In the storage it is `data/<hash>/`, with `images-<count>.npy` (count, resolution, resolution), or (count, 3,
resolution, resolution) in colour, uint8 or uint16, in the order that subsets are taken from; `manifest.json`;
`keys.txt`, which names the image of each row where rows have names; and `groups.npy` where images have groups.
"""

import hashlib
import io
import json
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gahb.config_fields import check_range, flatten, later
from gahb.data.pixel_shuffling import shuffle
from gahb.data.source import Source, write_through
from gahb.data.sources import DATASETS
from gahb.errors import UserError
from gahb.registry import Origin
from gahb.storage.base import Storage

log = logging.getLogger(__name__)

LARGEST = 4096
"""The largest resolution."""

MOST_OF_A_MANIFEST = 1 << 20
"""Bytes of a manifest."""


TYPES = (np.uint8, np.uint16)
"""In which images are stored; the largest number is intensity 1."""

GROUPS = "groups.npy"
"""File with the number of the group of each row, where images have groups."""


@dataclass(frozen=True)
class Dataset:
    """A source at a resolution.

    Args:
        source: where the images come from.
        resolution: pixels a side.
        shuffled: put the pixels of every image in the order of one common permutation.

    Raises:
        UserError: a resolution out of range.
    """

    source: Source
    resolution: int
    shuffled: bool = later(False)

    def __post_init__(self) -> None:
        check_range(LARGEST, resolution=self.resolution)
        self.source.check(self.resolution)

    @property
    def image_channels(self) -> int:
        """1 of gray images, 3 of those in colour."""
        return self.source.image_channels

    @property
    def bytes(self) -> int:
        """Of one image in the storage."""
        return self.image_channels * self.resolution**2 * self.source.bits // 8

    @property
    def name(self) -> str:
        """A short name: the registered one, or the file's without suffix."""
        return self.source.label

    @property
    def guest(self) -> Origin | None:
        """Where the source comes from, if it is a guest's."""
        return DATASETS.guest(self.source.name)

    def flat(self) -> dict[str, Any]:
        """The keys that this data set adds to a flat trial."""
        options = flatten(self.source)
        dataset = options.pop("path", self.source.name)
        own = {key: value for key, value in flatten(self).items() if key != "source"}
        return {"dataset": dataset, **own, **options}

    def recipe(self, storage: Storage) -> dict[str, Any]:
        """Everything that decides the images; see `Source.recipe`."""
        recipe = self.source.recipe(self.resolution, storage)
        if self.image_channels > 1:
            recipe["image_channels"] = self.image_channels
        if self.shuffled:
            recipe["shuffled"] = True
        if self.guest:
            recipe["plugin"] = str(self.guest)
        return recipe

    def hash(self, storage: Storage) -> str:
        """Sixteen hexadecimal digits that name the data set: the recipe's hash."""
        return hashlib.sha256(json.dumps(self.recipe(storage), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Prepared:
    """A data set in the cache.

    Args:
        images: (count, resolution, resolution), or (count, 3, resolution, resolution) in colour, uint8 or uint16,
            memory-mapped.
        groups: the number of the group of each image, (count,); None where each is its own.
        manifest: `hash`, `source`, `recipe`, `count`, `found`, `dropped_duplicates`, `mean` (of all pixels, in
            [0, 1]) and `content_sha256`.
    """

    images: NDArray[np.integer[Any]]
    manifest: dict[str, Any]
    groups: NDArray[np.int64] | None = None

    @classmethod
    def open(cls, storage: Storage, data_hash: str) -> "Prepared":
        """The cached data set of that hash.

        Raises:
            UserError: it is not in this storage, or damaged.
        """
        manifest = read_manifest(storage, data_hash)
        folder = f"data/{data_hash}"
        where = f"{storage.uri}/{folder}"
        with _readable(where):
            count, side = int(manifest["count"]), int(manifest["recipe"]["resolution"])
            check_range(LARGEST, resolution=side)
            channels = (3,) if manifest["recipe"].get("image_channels", 1) == 3 else ()
        try:
            file = storage.local(f"{folder}/images-{count}.npy")
        except FileNotFoundError as error:
            raise UserError(f"{where} cannot be read ({error}); remove it and launch the sweep again") from None
        with _readable(where), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers that other versions wrote
            images = np.lib.format.open_memmap(file, mode="r")
        if images.shape != (count, *channels, side, side) or images.dtype not in TYPES:
            raise UserError(f"{where} does not hold what its manifest says; remove it and launch the sweep again")
        groups = _read_groups(storage, folder, count) if "split" in manifest["recipe"] else None
        return cls(images, manifest, groups)


def read_manifest(storage: Storage, data_hash: str) -> dict[str, Any]:
    """The manifest of the cached data set of that hash.

    Raises:
        UserError: it is not in this storage, or no JSON.
    """
    if not (isinstance(data_hash, str) and re.fullmatch("[0-9a-f]{16}", data_hash)):
        raise UserError(f"{data_hash!r} is no hash of a data set")
    where = f"{storage.uri}/data/{data_hash}"
    try:
        content = storage.read(f"data/{data_hash}/manifest.json", MOST_OF_A_MANIFEST)
    except FileNotFoundError:
        raise UserError(f"{where} is not there; launch its sweep with this storage first") from None
    with _readable(where):
        return dict(json.loads(content))


def known_count(dataset: Dataset, storage: Storage) -> int | None:
    """How many images a data set has: in the cache if it is there, or else in its source, near-duplicates included;
    None where there is no end of them. Reads none of them.

    Raises:
        UserError: the cached data set is damaged.
    """
    if (count := dataset.source.count) is None:
        return None
    data_hash = dataset.hash(storage)
    if not storage.modified(f"data/{data_hash}/manifest.json"):
        return count
    manifest = read_manifest(storage, data_hash)
    with _readable(f"{storage.uri}/data/{data_hash}"):
        return int(manifest["count"])


def _read_groups(storage: Storage, folder: str, count: int) -> NDArray[np.int64]:
    where = f"{storage.uri}/{folder}"
    with _readable(where):
        content = io.BytesIO(storage.read(f"{folder}/{GROUPS}", 1024 + 8 * count))
        groups = np.lib.format.read_array(content, allow_pickle=False)
        if groups.shape != (count,) or groups.dtype != np.int64 or not ((groups >= 0) & (groups < count)).all():
            raise ValueError(f"{GROUPS} does not name a group for each image")
    return groups


@contextmanager
def _readable(where: str) -> Iterator[None]:
    """What others may have written is read here: whatever goes wrong is its fault."""
    try:
        yield
    except Exception as error:
        raise UserError(f"{where} cannot be read ({error}); remove it and launch the sweep again") from None


def prepare(dataset: Dataset, storage: Storage, needed: int, say: Callable[[str], None] = log.info) -> Prepared:
    """The data set in the cache with at least `needed` images; made if it is not there yet.

    A synthetic set is endless: its first images do not depend on how many are made, so a longer cache replaces a
    shorter one.

    Raises:
        UserError: an image that cannot be used, images smaller than the resolution, or fewer than `needed`.
    """
    recipe, data_hash = dataset.recipe(storage), dataset.hash(storage)
    folder = f"data/{data_hash}"
    endless = dataset.source.count is None
    if storage.modified(f"{folder}/manifest.json"):
        prepared = Prepared.open(storage, data_hash)
        if len(prepared.images) >= needed or not endless:
            return prepared
    with storage.scratch() as work:
        rendered = dataset.source.render(dataset.resolution, needed, work, say)
        images = rendered.images
        if rendered.keys is not None:
            storage.write(f"{folder}/keys.txt", "".join(f"{key}\n" for key in rendered.keys).encode())
        if rendered.groups is not None:
            stream = io.BytesIO()
            np.lib.format.write_array(stream, rendered.groups)
            storage.write(f"{folder}/{GROUPS}", stream.getvalue())
        if dataset.shuffled:
            for image in images:
                image[:] = shuffle(image)
        manifest = {
            "hash": data_hash,
            "source": dataset.flat()["dataset"],
            "recipe": recipe,
            "file": f"images-{len(images)}.npy",
            "count": len(images),
            **rendered.facts,
            **_content(images, work / "images.npy"),
        }
        storage.upload(work / "images.npy", f"{folder}/{manifest['file']}")
        storage.write(f"{folder}/manifest.json", json.dumps(manifest, indent=2, ensure_ascii=False).encode())
    return Prepared.open(storage, data_hash)


def _content(images: NDArray[np.integer[Any]], file: Path) -> dict[str, Any]:
    """Mean and hash of all images, once their file is on the disk; all three at a time."""
    with ThreadPoolExecutor(2) as threads:
        written = threads.submit(write_through, file)
        digest = threads.submit(lambda: hashlib.sha256(images.data).hexdigest())
        mean = float(np.mean(images, dtype=np.float64) / np.iinfo(images.dtype).max)
        written.result()
        return {"mean": mean, "content_sha256": digest.result()}
