"""Which images belong together, such as the photographs of one person, so that subsets can be disjoint in these too.

A list file has a line "KEY GROUP" for each image: what names it in its source (`gahb.data.image_files`), then a word
for its group. CelebA's `identity_CelebA.txt` is such a file where the images' names are keys.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from gahb.errors import UserError
from gahb.storage.local import content_of

LARGEST = 1 << 29
"""Bytes of a list file; CelebA's has 3.5 MB."""


@dataclass(frozen=True)
class Groups:
    """The groups of a list file. `named` is image → group, `digest` the sha256 of the file."""

    path: str
    named: dict[str, str]
    digest: str

    @classmethod
    def read(cls, path: str) -> Self:
        """The groups that a file names.

        Raises:
            UserError: no such file, a line that is no image with its group, or an image with two.
        """
        try:
            content = content_of(Path(path).expanduser(), LARGEST, links=True)
            lines = content.decode().splitlines()
        except (OSError, ValueError) as error:
            raise UserError(f"split={path}: cannot be read ({error})") from None
        named: dict[str, str] = {}
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            words = line.strip().rsplit(maxsplit=1)
            if len(words) != 2:
                raise UserError(f"split={path}: line {number} needs an image and its group, as in 000001.jpg 2880")
            key, group = words
            if named.setdefault(key, group) != group:
                raise UserError(f"split={path}: line {number} puts {key} into {group}, and another into {named[key]}")
        return cls(path, named, hashlib.sha256(content).hexdigest())

    def of(self, keys: Sequence[str]) -> NDArray[np.int64]:
        """The numbers of the images' groups, (len(keys),), from 0 up in the order of the sha256 of their names.

        Raises:
            UserError: an image without a group.
        """
        missing = [key for key in keys if key not in self.named]
        if missing:
            raise UserError(
                f"split={self.path}: names no group for {missing[0]}, as for {len(missing)} of {len(keys)} images; "
                "names must be those inside the folder or archive"
            )
        names = [self.named[key] for key in keys]
        order = sorted(set(names), key=lambda name: hashlib.sha256(name.encode()).digest())
        numbers = {name: number for number, name in enumerate(order)}
        return np.array([numbers[name] for name in names], dtype=np.int64)
