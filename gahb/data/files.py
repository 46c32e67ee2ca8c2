"""Images from disk: a folder or a zip of image files (CelebA as distributed among them), or a `.npy` array."""

import hashlib
import io
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gahb.data.frames import crop_rule
from gahb.errors import UserError

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm"}

UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    zipfile.BadZipFile,
    Image.DecompressionBombWarning,
    Image.DecompressionBombError,
)
"""What Pillow and zipfile raise for a file that is damaged or far too large."""


@dataclass(frozen=True)
class Files:
    """Images in a folder (searched recursively), a zip or a `.npy` array (N, H, W[, channels]).

    Args:
        path: the folder or file. It is not part of a trial's signature; the content is.
        duplicates: of two images whose mean-removed 20×20 versions have |cosine| above this, the later one is
            dropped (appendix B.1); 1 keeps all.

    Raises:
        UserError: nothing at the path, a format that is not read, or no image inside.
    """

    name: ClassVar[str] = "files"
    path: str
    duplicates: float = 0.95

    def __post_init__(self) -> None:
        if not 0 < self.duplicates <= 1:
            raise UserError(f"duplicates={self.duplicates}: must lie in (0, 1]")

    @cached_property
    def _location(self) -> Path:
        path = Path(self.path).expanduser().absolute()
        if not path.exists():
            raise UserError(f"dataset={self.path}: no such file or folder, and no registered data set of that name")
        return path

    @cached_property
    def _array(self) -> NDArray[Any] | None:
        """The `.npy` array, memory-mapped; None for a folder or zip."""
        if self._location.suffix != ".npy":
            return None
        try:
            array = np.load(self._location, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise UserError(f"dataset={self.path}: not a .npy array of numbers ({error})") from None
        if array.ndim not in (3, 4) or array.dtype != np.uint8 or 0 in array.shape:
            raise UserError(
                f"dataset={self.path}: needs uint8 images of shape (N, H, W) or (N, H, W, channels), "
                f"but holds {array.dtype} {array.shape}"
            )
        return array

    @cached_property
    def keys(self) -> list[str]:
        """What names each image inside the source, sorted: file names, or positions in the array."""
        if self._array is not None:
            return [str(i) for i in range(len(self._array))]
        path = self._location
        if path.is_dir():
            names = [p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()]
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        else:
            raise UserError(f"dataset={self.path}: neither a folder, a .zip of images nor a .npy array")
        names = sorted(n for n in names if Path(n).suffix.lower() in SUFFIXES and not _hidden(n))
        if not names:
            raise UserError(f"dataset={self.path}: holds no image ({', '.join(sorted(SUFFIXES))})")
        return names

    @cached_property
    def crop(self) -> str:
        """The crop rule, chosen by the first image's size."""
        if self._array is not None:
            height, width = self._array.shape[1:3]
        else:
            height, width = self._decode(self.keys[0]).shape[:2]
        return crop_rule(width, height)

    @cached_property
    def stamp(self) -> str:
        """A hash of names, sizes and modification times: cheap, and changed when the source is touched."""
        path = self._location
        files = [path] if path.is_file() else [path / key for key in self.keys]
        digest = hashlib.sha256(str(path).encode())
        for file in files:
            status = file.stat()
            digest.update(f"{file}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def fingerprint(self) -> str:
        """sha256 of the bytes: of the file, or of a folder's image files with their names. Reads everything."""
        path = self._location
        digest = hashlib.sha256()
        for file in [path] if path.is_file() else [path / key for key in self.keys]:
            if path.is_dir():
                digest.update(f"{file.relative_to(path).as_posix()}\0{file.stat().st_size}\n".encode())
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()

    def images(self) -> Iterator[NDArray[np.uint8]]:
        """Every image in the order of `keys`, (H, W) or (H, W, channels).

        Raises:
            UserError: a file that cannot be decoded, or that breaks CelebA's common size; the message names it.
        """
        if self._array is not None:
            yield from self._array
            return
        for key in self.keys:
            pixels = self._decode(key)
            if self.crop == "celeba" and crop_rule(pixels.shape[1], pixels.shape[0]) != "celeba":
                raise UserError(
                    f"dataset={self.path}: {key} is {pixels.shape[1]}×{pixels.shape[0]} among aligned CelebA faces; "
                    "remove it"
                )
            yield pixels

    def _decode(self, key: str) -> NDArray[np.uint8]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with Image.open(io.BytesIO(self._read(key))) as image:
                    mode = "L" if image.mode in ("L", "1", "I;16", "I", "F") else "RGB"
                    return np.asarray(image.convert(mode))
        except UNREADABLE as error:
            raise UserError(
                f"dataset={self.path}: {key} cannot be decoded ({str(error).split(chr(10))[0]}); mend or remove it"
            ) from None

    def _read(self, key: str) -> bytes:
        return (self._location / key).read_bytes() if self._archive is None else self._archive.read(key)

    @cached_property
    def _archive(self) -> zipfile.ZipFile | None:
        return None if self._location.is_dir() else zipfile.ZipFile(self._location)


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in Path(name).parts)
