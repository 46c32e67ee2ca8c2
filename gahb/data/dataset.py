"""A data set: a source's images at one resolution, prepared once, cached with a manifest, named by a hash.

In the storage it is `data/<hash>/`, with `images-<count>.npy` (count, resolution, resolution) uint8 in the order that
subsets are taken from, `manifest.json`, and for images from disk `keys.txt`, which names the image of each row.
"""

import hashlib
import json
import logging
import os
import re
import shutil
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gahb.config_fields import check_range, flatten, later
from gahb.data.cropping import THUMBNAIL, gray_square, resize, thumbnail
from gahb.data.image_files import Files
from gahb.data.manifold import CHUNK
from gahb.data.pixel_shuffling import shuffle
from gahb.data.sources import Source
from gahb.errors import UserError
from gahb.storage.local import Storage

log = logging.getLogger(__name__)

LARGEST = 4096
"""The largest resolution."""


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

    @property
    def name(self) -> str:
        """A short name: the registered one, or the file's without suffix."""
        return Path(self.source.path).stem if isinstance(self.source, Files) else self.source.name

    @property
    def found(self) -> int | None:
        """Number of images in the source, near-duplicates included; None for an endless one."""
        return len(self.source.keys) if isinstance(self.source, Files) else None

    def flat(self) -> dict[str, Any]:
        """The keys that this data set adds to a flat trial."""
        options = flatten(self.source)
        dataset = options.pop("path", self.source.name)
        own = {key: value for key, value in flatten(self).items() if key != "source"}
        return {"dataset": dataset, **own, **options}

    def recipe(self, storage: Storage) -> dict[str, Any]:
        """Everything that decides the images. For files it holds the hash of their bytes, which is computed once and
        kept in the storage until the files' sizes or times change."""
        options: dict[str, Any] = {"shuffled": True} if self.shuffled else {}
        if not isinstance(self.source, Files):
            return {**self.source.law(), "resolution": self.resolution, **options}
        if self.source.limit:
            options["limit"] = self.source.limit
        crop = self.source.frame  # first, because it fails where there is no image, and the next writes
        return {
            "sha256": _fingerprint(self.source, storage),
            "crop": crop,
            "gray": "mean of channels",
            "resize": "bicubic",
            "resolution": self.resolution,
            "duplicates": self.source.duplicates,
            "order": "by sha256 of the key",
            "version": 1,
            **options,
        }

    def hash(self, storage: Storage) -> str:
        """Sixteen hexadecimal digits that name the data set: the recipe's hash."""
        return hashlib.sha256(json.dumps(self.recipe(storage), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Prepared:
    """A data set in the cache.

    Args:
        images: (count, resolution, resolution) uint8, memory-mapped.
        manifest: `hash`, `source`, `recipe`, `count`, `found`, `dropped_duplicates`, `mean` (of all pixels, in
            [0, 1]) and `content_sha256`.
    """

    images: NDArray[np.uint8]
    manifest: dict[str, Any]

    @classmethod
    def open(cls, storage: Storage, data_hash: str) -> "Prepared":
        """The cached data set of that hash.

        Raises:
            UserError: it is not in this storage, or damaged.
        """
        if not (isinstance(data_hash, str) and re.fullmatch("[0-9a-f]{16}", data_hash)):
            raise UserError(f"{data_hash!r} is no hash of a data set")
        folder = f"data/{data_hash}"
        where = f"{storage.uri}/{folder}"
        try:
            manifest = json.loads(storage.read(f"{folder}/manifest.json"))
            count, side = int(manifest["count"]), int(manifest["recipe"]["resolution"])
        except FileNotFoundError:
            raise UserError(f"{where} is not there; launch its sweep with this storage first") from None
        except (ValueError, LookupError, TypeError, OverflowError) as error:
            raise UserError(f"{where} cannot be read ({error}); remove it and launch the sweep again") from None
        try:
            images = np.lib.format.open_memmap(storage.local(f"{folder}/images-{count}.npy"), mode="r")
        except (FileNotFoundError, ValueError) as error:
            raise UserError(f"{where} cannot be read ({error}); remove it and launch the sweep again") from None
        if images.shape != (count, side, side) or images.dtype != np.uint8:
            raise UserError(f"{where} does not hold what its manifest says; remove it and launch the sweep again")
        return cls(images, manifest)


def prepare(dataset: Dataset, storage: Storage, needed: int, say: Callable[[str], None] = log.info) -> Prepared:
    """The data set in the cache with at least `needed` images; made if it is not there yet.

    A synthetic set is endless: its first images do not depend on how many are made, so a longer cache replaces a
    shorter one.

    Raises:
        UserError: an image that cannot be used, images smaller than the resolution, or fewer than `needed`.
    """
    recipe, data_hash = dataset.recipe(storage), dataset.hash(storage)
    folder = f"data/{data_hash}"
    synthetic = not isinstance(dataset.source, Files)
    if storage.modified(f"{folder}/manifest.json"):
        prepared = Prepared.open(storage, data_hash)
        if len(prepared.images) >= needed or not synthetic:
            return prepared
    with storage.scratch() as work:
        if isinstance(dataset.source, Files):
            images, facts, keys = _from_files(dataset.source, dataset.resolution, work, say)
            storage.write(f"{folder}/keys.txt", "".join(f"{key}\n" for key in keys).encode())
        else:
            say(f"synthesising {needed} {dataset.name} images at {dataset.resolution}×{dataset.resolution}")
            images, facts = _synthesise(dataset.source, dataset.resolution, work, needed), {"found": needed}
        if dataset.shuffled:
            for image in images:
                image[:] = shuffle(image)
        manifest = {
            "hash": data_hash,
            "source": dataset.flat()["dataset"],
            "recipe": recipe,
            "file": f"images-{len(images)}.npy",
            "count": len(images),
            **facts,
            "mean": float(np.mean(images, dtype=np.float64) / 255),
            "content_sha256": hashlib.sha256(images.data).hexdigest(),
        }
        storage.upload(work / "images.npy", f"{folder}/{manifest['file']}")
        storage.write(f"{folder}/manifest.json", json.dumps(manifest, indent=2, ensure_ascii=False).encode())
    return Prepared.open(storage, data_hash)


def _synthesise(source: Any, resolution: int, work: Path, count: int) -> NDArray[np.uint8]:
    images = _new_array(work / "images.npy", count, resolution)

    def fill(index: int) -> None:
        place = images[index * CHUNK : (index + 1) * CHUNK]
        place[:] = source.chunk(resolution, index)[: len(place)]

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        deque(threads.map(fill, range(-(-count // CHUNK))), maxlen=0)
    images.flush()
    return images


def _from_files(
    source: Files, resolution: int, work: Path, say: Callable[[str], None]
) -> tuple[NDArray[np.uint8], dict[str, Any], list[str]]:
    from gahb.data.similarity import near_duplicates

    keys = source.keys
    say(f"reading {len(keys)} images from {source.path}")
    decoded = _new_array(work / "decoded.npy", len(keys), resolution)
    thumbnails = np.empty((len(keys), THUMBNAIL, THUMBNAIL), np.float32)
    for row, (key, pixels) in enumerate(zip(keys, source.images(), strict=True)):
        square = gray_square(pixels, source.frame)
        if len(square) < resolution:
            raise UserError(
                f"resolution={resolution}: {key} of {source.path} is only {len(square)} pixels wide after the crop"
            )
        decoded[row] = resize(square, resolution)
        thumbnails[row] = thumbnail(square)
    drop = near_duplicates(thumbnails, source.duplicates) if source.duplicates < 1 else np.zeros(len(keys), bool)
    order = sorted(np.flatnonzero(~drop), key=lambda row: hashlib.sha256(keys[row].encode()).digest())
    images = _new_array(work / "images.npy", len(order), resolution)
    for row, origin in enumerate(order):
        images[row] = decoded[origin]
    images.flush()
    say(f"kept {len(order)} of {len(keys)} images; dropped {drop.sum()} near-duplicates")
    return images, {"found": len(keys), "dropped_duplicates": int(drop.sum())}, [keys[row] for row in order]


def _new_array(path: Path, count: int, resolution: int) -> Any:
    free = shutil.disk_usage(path.parent).free
    if count * resolution**2 > free:  # to write into a mapped file on a full disk ends the process
        size = count * resolution**2 / 1e9
        raise UserError(f"{count} images of {resolution}×{resolution} take {size:.3g} GB; {free / 1e9:.3g} are free")
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(count, resolution, resolution))


def _fingerprint(source: Files, storage: Storage) -> str:
    name = f"data/fingerprints/{source.stamp}"
    try:
        return storage.read(name).decode()
    except FileNotFoundError:
        found = source.fingerprint()
        storage.write(name, found.encode())
        return found
