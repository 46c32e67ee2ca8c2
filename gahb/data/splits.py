"""Disjoint subsets: A and B of N images each, and a held-out test set common to both.

With T held-out images, the rows of a prepared data set are dealt out as

    held-out: 0 … T-1        A: T, T+2, T+4, …        B: T+1, T+3, T+5, …

so the three are disjoint by construction, and nested in N: the first 100 images of A are in its first 1000.
"""

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gahb.data.dataset import Prepared
from gahb.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

SUBSETS = ("A", "B")


@dataclass(frozen=True)
class Split:
    """The images of a trial among those of its data set.

    Args:
        subset: "A" or "B".
        n_train: N, the images of the subset.
        n_test: the images held out from both subsets.
    """

    subset: str
    n_train: int
    n_test: int

    @property
    def needed(self) -> int:
        """Images that the data set must have for this subset and its counterpart."""
        return self.n_test + 2 * self.n_train

    @property
    def rows(self) -> NDArray[np.int64]:
        """Rows of the training images, (n_train,)."""
        return self.n_test + SUBSETS.index(self.subset) + 2 * np.arange(self.n_train)

    def check_size(self, count: int, name: str) -> None:
        """Raise UserError if two subsets of N and the held-out set do not fit in the `count` images of `name`."""
        if self.needed > count:
            most = max(0, (count - self.n_test) // 2)
            raise UserError(
                f"n_train={self.n_train}: {name} has {count} images, and two disjoint subsets beside {self.n_test} "
                f"held-out ones leave at most {most}"
            )

    def training_images(self, prepared: Prepared) -> "Tensor":
        """The training images, (n_train, C, H, W) as they are stored.

        Raises:
            UserError: there are not as many.
        """
        self.check_size(len(prepared.images), "the data set")
        return _tensor(prepared, self.rows)

    def held_out_images(self, prepared: Prepared) -> "Tensor":
        """The held-out images, (n_test, C, H, W) as they are stored."""
        return _tensor(prepared, np.arange(self.n_test))


def subset_hash(images: "Tensor") -> str:
    """Sixteen hexadecimal digits of the sha256 of the images' bytes, in order."""
    return hashlib.sha256(images.numpy().tobytes()).hexdigest()[:16]


def _tensor(prepared: Prepared, rows: NDArray[np.int64]) -> "Tensor":
    import torch  # slow, and a plan needs only the counts above

    images = torch.from_numpy(prepared.images[rows])
    return images if images.ndim == 4 else images.unsqueeze(1)
