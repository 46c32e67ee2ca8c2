"""Images from disk: a folder or a zip of image files (CelebA as distributed among them), one such file, LSUN, or a
`.npy` array."""

import hashlib
import io
import math
import re
import stat
import unicodedata
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gahb import progress
from gahb.config_fields import later
from gahb.data import lsun
from gahb.data.cropping import LSUN_SIDE, THUMBNAIL, coloured, crop_rule, gray, square_of
from gahb.data.decoding import decode
from gahb.data.groups import Groups
from gahb.data.source import Rendered, Source, new_images
from gahb.errors import UserError
from gahb.storage.base import Storage
from gahb.storage.local import OddFile, content_of

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm"}

CROPS = ("auto", "lsun")

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM")
"""What Pillow may take a file for, whatever its name; for some others it would start a program."""

LARGEST = 1 << 28
"""Bytes of the largest image file, unpacked."""

MOST_IMAGES = 4_000_000
"""Images of a data set, whose thumbnails take 6.4 GB; of LSUN's bedrooms there are 3,033,042."""

MOST_PIXELS = 50 << 20
"""Pixels of the largest image, decoded, or of a tile of a TIFF; Pillow takes four bytes for each."""

MOST_PIXELS_IN_PYTHON = 4 << 20
"""Pixels of the largest image in a format that Pillow decodes in Python, a thousand times as slowly."""

MOST_SCANS = 100
"""Scans of a JPEG, each of which passes over all its pixels; a progressive file has about ten."""

MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd8\x01]")
"""A marker in a JPEG that is not a part of a scan."""

BAND = 1 << 20
"""Pixels of an image that become gray at once."""

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Compressions in a zip that unpack no more than is asked for at a time."""


@dataclass(frozen=True)
class ImageFiles(Source):
    """Images in a folder (searched recursively), a zip, a file, LSUN's LMDB or a `.npy` array (N, H, W[, channels]).

    Args:
        path: the folder or file. It is not part of a trial's signature; the content is.
        duplicates: of two images whose mean-removed 20×20 versions have |cosine| above this, the later one is
            dropped (appendix B.1); 1 keeps all.
        crop: "lsun" takes the 256×256 at the top left, as an LMDB's images are always taken; "auto" goes by the size.
        limit: how many images are read, a choice by the sha256 of their keys; 0 reads all.
        color: keep red, green and blue; otherwise images are gray, the mean of these.
        split: a file that names the group of each image, such as the person, "KEY GROUP" a line; then A, B and the
            held-out images have no group in common. Its path is no part of a trial's signature; its content is.

    Raises:
        UserError: nothing at the path, a format that is not read, no image inside, or a value out of range.
    """

    name: ClassVar[str] = "files"
    path: str
    duplicates: float = 0.95
    crop: str = later("auto")
    limit: int = later(0)
    color: bool = later(False)
    split: str = later("")

    def __post_init__(self) -> None:
        if not 0 < self.duplicates <= 1:
            raise UserError(f"duplicates={self.duplicates}: must lie in (0, 1]")
        if self.crop not in CROPS:
            raise UserError(f"crop={self.crop}: must be one of {', '.join(CROPS)}")
        if self.limit < 0:
            raise UserError(f"limit={self.limit}: must be at least 1, or 0 for all")

    @classmethod
    def of(cls, dataset: str, **options: Any) -> Self:
        return cls(path=dataset, **options)

    @property
    def image_channels(self) -> int:
        return 3 if self.color else 1

    @property
    def label(self) -> str:
        """The file's name without suffix."""
        return Path(self.path).stem

    @property
    def count(self) -> int:
        """Number of images, near-duplicates included."""
        return len(self.keys)

    def recipe(self, resolution: int, storage: Storage) -> dict[str, Any]:
        """As for every source; it holds the hash of the files' bytes, which is computed once and kept in the storage
        until the files' sizes or times change."""
        crop = self.frame  # first, because it fails where there is no image, and the next writes
        return {
            "sha256": self._known_fingerprint(storage),
            "crop": crop,
            **({} if self.color else {"gray": "mean of channels"}),
            "resize": "bicubic",
            "resolution": resolution,
            "duplicates": self.duplicates,
            "order": "by sha256 of the key",
            "version": 1,
            **({"limit": self.limit} if self.limit else {}),
            **({"split": self._groups.digest} if self._groups else {}),
        }

    def render(self, resolution: int, needed: int, work: Path, say: Callable[[str], None]) -> Rendered:
        """As for every source: cropped and resized, without near-duplicates, in the order of their keys' hashes.

        Raises:
            UserError: an image that cannot be used, or one smaller than the resolution.
        """
        from gahb.data.similarity import near_duplicates  # imports torch

        keys = self.keys
        say(f"reading {len(keys)} images from {self.path}")
        decoded = new_images(work, len(keys), resolution, "decoded.npy", channels=self.image_channels)
        thumbnails = np.empty((len(keys), THUMBNAIL, THUMBNAIL), np.float32)
        decode(replace(self), keys, self.frame, decoded, thumbnails)  # without what is cached here
        drop = near_duplicates(thumbnails, self.duplicates) if self.duplicates < 1 else np.zeros(len(keys), bool)
        order = sorted(np.flatnonzero(~drop), key=lambda row: hashlib.sha256(keys[row].encode()).digest())
        images = new_images(work, len(order), resolution, channels=self.image_channels)
        for row, origin in enumerate(order):
            images[row] = decoded[origin]
        say(f"kept {len(order)} of {len(keys)} images; dropped {drop.sum()} near-duplicates")
        facts = {"found": len(keys), "dropped_duplicates": int(drop.sum())}
        kept = [keys[row] for row in order]
        return Rendered(images, facts, kept, self._groups.of(kept) if self._groups else None)

    def _known_fingerprint(self, storage: Storage) -> str:
        name = f"data/fingerprints/{self.stamp}"
        try:
            known = storage.read(name, most=64).decode("ascii", "replace")
        except (FileNotFoundError, OddFile):
            known = ""
        if not re.fullmatch("[0-9a-f]{64}", known):
            known = self.fingerprint()
            storage.write(name, known.encode())
        return known

    @cached_property
    def _groups(self) -> Groups | None:
        return Groups.read(self.split) if self.split else None

    @cached_property
    def _location(self) -> Path:
        try:
            path = Path(self.path).expanduser().absolute()
            mode = path.stat().st_mode if self.path else 0
        except (OSError, RuntimeError):  # a name that is too long, a loop of links, the home of nobody
            raise UserError(
                f"dataset={self.path}: no such file or folder, and no registered data set of that name"
            ) from None
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise UserError(f"dataset={self.path}: neither a file nor a folder")
        return path

    @cached_property
    def _array(self) -> NDArray[Any] | None:
        """The `.npy` array, memory-mapped; None for a folder or zip."""
        if self._location.suffix != ".npy":
            return None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of headers that other versions wrote
                array = np.asarray(np.lib.format.open_memmap(self._location, mode="r"))
        except Exception as error:  # of many kinds, as the header is damaged
            raise UserError(f"dataset={self.path}: not a .npy array of numbers ({error})") from None
        if array.ndim not in (3, 4) or array.dtype != np.uint8 or 0 in array.shape:
            raise UserError(
                f"dataset={self.path}: needs uint8 images of shape (N, H, W) or (N, H, W, channels), "
                f"but holds {array.dtype} {array.shape}"
            )
        if math.prod(array.shape[1:3]) > MOST_PIXELS:
            raise UserError(f"dataset={self.path}: its images {_are_too_large(*array.shape[2:0:-1])}")
        return array

    @cached_property
    def _is_lmdb(self) -> bool:
        return (self._location / lsun.FILE).is_file()

    @cached_property
    def keys(self) -> list[str]:
        """What names each image inside the source, in a fixed order: file names, LSUN's keys, or positions in the
        array."""
        names = self._names()
        if not 0 < self.limit < len(names):
            chosen = names
        else:
            first = set(sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())[: self.limit])
            chosen = [name for name in names if name in first]
        if len(chosen) > MOST_IMAGES:
            raise UserError(
                f"dataset={self.path}: {len(chosen):,} images are more than {MOST_IMAGES:,}; limit={MOST_IMAGES} "
                "takes a choice of them"
            )
        return chosen

    def _names(self) -> list[str]:
        if self._array is not None:
            if len(self._array) > lsun.MOST_KEYS:
                raise UserError(f"dataset={self.path}: holds {len(self._array):,} images, more than are ever read")
            return [str(i) for i in range(len(self._array))]
        path = self._location
        if self._is_lmdb:
            names = lsun.keys(path)
        elif path.is_dir():
            try:
                names = [p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()]
            except (OSError, RecursionError) as error:  # names that are too long, folders that are too deep
                raise UserError(f"dataset={self.path}: what is in it cannot be listed ({error})") from None
        elif path.suffix.lower() in SUFFIXES:
            names = [path.name]
        elif self._archive is not None:
            names = self._archive.namelist()
        else:
            raise UserError(f"dataset={self.path}: neither a folder, a .zip of images, an image nor a .npy array")
        if not self._is_lmdb:
            names = sorted(n for n in names if Path(n).suffix.lower() in SUFFIXES)
        for name in names:
            if problem := _problem(name):
                raise UserError(f"dataset={self.path}: {name} {problem}; rename or remove it")
        if not self._is_lmdb:
            names = [name for name in names if not _hidden(name)]
        if not names:
            raise UserError(f"dataset={self.path}: holds no image ({', '.join(sorted(SUFFIXES))})")
        return names

    @cached_property
    def frame(self) -> str:
        """The crop of all images: "lsun", or what the first image's size says; UserError if there is no image."""
        first = self.keys[0]
        if self.crop == "lsun" or self._is_lmdb:
            return "lsun"
        if self._array is not None:
            height, width = self._array.shape[1:3]
        else:
            with self._decoded(first) as image:
                width, height = image.size
        return crop_rule(width, height)

    @property
    def unsafe(self) -> bool:
        """Whether a damaged file may end the process that reads it, as an LMDB does."""
        return self._is_lmdb

    @property
    def _files(self) -> list[Path]:
        """The files that hold the images."""
        path = self._location
        if self._is_lmdb:
            return [path / lsun.FILE]
        return [path] if path.is_file() else [path / key for key in self.keys]

    @cached_property
    def stamp(self) -> str:
        """A hash of names, sizes and modification times: cheap, and changed when the source is touched."""
        digest = hashlib.sha256(str(self._location).encode())
        for file in self._files:
            status = file.stat()
            digest.update(f"{file}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def fingerprint(self) -> str:
        """sha256 of the bytes: of the file, or of a folder's image files with their names. Reads everything."""
        path = self._location
        digest = hashlib.sha256()
        sizes = {file: file.stat().st_size for file in self._files}
        with progress.bar(f"hashing {path.name}", sum(sizes.values()), in_bytes=True) as advance:
            for file, size in sizes.items():
                if path.is_dir():
                    digest.update(f"{file.relative_to(path).as_posix()}\0{size}\n".encode())
                with file.open("rb") as stream:
                    while block := stream.read(1 << 20):
                        digest.update(block)
                        advance(len(block))
        return digest.hexdigest()

    def square(self, key: str, frame: str) -> NDArray[np.float32]:
        """The square that is used of an image, (side, side), or (3, side, side) in colour, in 0…255. No part of the
        image is held twice but for a band of it.

        Raises:
            UserError: a file that cannot be decoded, that breaks CelebA's common size, or that is too small for
                LSUN's crop; the message names it.
        """
        if self._array is not None:
            pixels = self._array[int(key)]
            height, width = pixels.shape[:2]
            self._check_frame(key, frame, width, height)
            top, left, side = square_of(width, height, frame)
            return self._intensities(pixels[top : top + side, left : left + side])
        with self._decoded(key) as image:
            self._check_frame(key, frame, *image.size)
            top, left, side = square_of(*image.size, frame)
            mode = "L" if image.mode in ("L", "1", "I;16", "I", "F") else "RGB"
            rows = max(1, BAND // side)
            square = np.empty((3, side, side) if self.color else (side, side), np.float32)
            for start in range(0, side, rows):
                band = image.crop((left, top + start, left + side, min(top + start + rows, top + side)))
                pixels = np.asarray(band if band.mode == mode else band.convert(mode))
                square[..., start : start + rows, :] = self._intensities(pixels)
            return square

    def _intensities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return coloured(pixels) if self.color else gray(pixels)

    def _check_frame(self, key: str, frame: str, width: int, height: int) -> None:
        if frame == "celeba" and crop_rule(width, height) != "celeba":
            raise UserError(f"dataset={self.path}: {key} is {width}×{height} among aligned CelebA faces; remove it")
        if frame == "lsun" and min(width, height) < LSUN_SIDE:
            raise UserError(
                f"dataset={self.path}: {key} is {width}×{height}, and LSUN's crop takes {LSUN_SIDE}×{LSUN_SIDE}"
            )

    @contextmanager
    def _decoded(self, key: str) -> Iterator[Image.Image]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                content = self._read(key)
                with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                    if problem := _costs_too_much(image, content):
                        raise UserError(f"dataset={self.path}: {key} {problem}")
                    del content
                    image.load()
                    yield image
        except UserError:
            raise
        except Exception as error:  # of many kinds, as the file is damaged
            reason = str(error).partition(" <")[0]
            raise UserError(f"dataset={self.path}: {key} cannot be decoded ({reason}); mend or remove it") from None

    def _read(self, key: str) -> bytes:
        if self._is_lmdb:
            return lsun.read(self._location, key, LARGEST)
        if self._archive is not None:
            member = self._archive.getinfo(key)
            if member.compress_type not in METHODS or stat.S_ISLNK(member.external_attr >> 16):
                raise UserError(f"dataset={self.path}: {key} is no file that was stored or deflated; pack it anew")
            self._check_size(key, member.file_size)
            with self._archive.open(member) as file:
                return file.read(member.file_size)
        path = self._location if self._location.is_file() else self._location / key
        self._check_size(key, path.stat().st_size)
        return content_of(path, links=True)

    def _check_size(self, key: str, size: int) -> None:
        if size > LARGEST:
            raise UserError(f"dataset={self.path}: {key} is larger than {LARGEST >> 20} MiB; remove it")

    @cached_property
    def _archive(self) -> zipfile.ZipFile | None:
        """The zip; None for what is none."""
        try:
            return zipfile.ZipFile(self._location) if zipfile.is_zipfile(self._location) else None
        except Exception as error:  # of many kinds, as the file is damaged
            raise UserError(f"dataset={self.path}: the zip cannot be read ({error})") from None


def _are_too_large(width: int, height: int) -> str:
    return f"are {width}×{height}, and at most {MOST_PIXELS >> 20} million pixels are read; make them smaller"


def _costs_too_much(image: Image.Image, content: bytes) -> str | None:
    """Why an image that has been opened is not to be decoded; None if it may be."""
    pixels = math.prod(image.size)
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    tile = tags.get(322, 0) * tags.get(323, 0)
    if max(pixels, tile) > MOST_PIXELS:
        part = "has" if pixels > MOST_PIXELS else "has a tile of"
        return f"{part} {max(pixels, tile):,} pixels, and at most {MOST_PIXELS:,} are decoded; make it smaller"
    if pixels > MOST_PIXELS_IN_PYTHON and any(part[0] in Image.DECODERS for part in getattr(image, "tile", ())):
        return f"has {pixels:,} pixels in a form that takes minutes to decode; save it as PNG"
    if content[:2] == b"\xff\xd8" and _scans(content) > MOST_SCANS:
        return f"has more than {MOST_SCANS} scans; save it anew"
    return None


def _scans(content: bytes) -> int:
    """Number of scans of a JPEG, as far as one more than MOST_SCANS."""
    found = content.count(b"\xff\xda")  # some of which may be in a comment, or in what follows the image
    if found <= MOST_SCANS:
        return found
    found, place = 0, 2
    while found <= MOST_SCANS and (marker := MARKER.search(content, place)) and marker[0] != b"\xff\xd9":
        found += marker[0] == b"\xff\xda"
        place = marker.end() + int.from_bytes(content[marker.end() : marker.end() + 2])
    return found


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in Path(name).parts)


def _problem(name: str) -> str | None:
    """What makes a name unfit for a key, such as a way out of the archive; None if nothing does."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        return "leads out of the archive"
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name):
        return "has a letter in its name that cannot be printed"
    return None
