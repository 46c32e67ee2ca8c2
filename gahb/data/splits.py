"""Disjoint subsets: A and B of N images each, and a held-out test set common to both.

With T held-out images, the rows of a prepared data set are dealt out as

    held-out: 0 … T-1        A: T, T+2, T+4, …        B: T+1, T+3, T+5, …

so the three are disjoint by construction, and nested in N: the first 100 images of A are in its first 1000.

Where images have groups, whole groups are dealt out, in their order: to the held-out images until there are T, then
each to the one of A and B that has fewer. Of what each is dealt, the first rows count, so this is nested in N, too.
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

Groups = NDArray[np.int64] | None
"""The number of the group of each row, (count,); None where each row is its own."""


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
        """Images that the data set must have for this subset and its counterpart, if each is a group of its own."""
        return self.n_test + 2 * self.n_train

    def rows(self, groups: Groups = None) -> NDArray[np.int64]:
        """Rows of the training images, (n_train,), fewer where groups leave fewer."""
        if groups is None:
            return self.n_test + SUBSETS.index(self.subset) + 2 * np.arange(self.n_train)
        return _dealt(groups, self.n_test)[1 + SUBSETS.index(self.subset)][: self.n_train]

    def held_out_rows(self, groups: Groups = None) -> NDArray[np.int64]:
        """Rows of the held-out images, (n_test,), fewer where there are fewer."""
        return np.arange(self.n_test) if groups is None else _dealt(groups, self.n_test)[0][: self.n_test]

    def check_size(self, count: int, name: str) -> None:
        """Raise UserError if two subsets of N and the held-out set do not fit in the `count` images of `name`."""
        if self.needed > count:
            self._refuse(name, count, max(0, (count - self.n_test) // 2))

    def check(self, prepared: Prepared, name: str) -> None:
        """Raise UserError if they do not fit in the images of the data set `name`, or its groups."""
        self.check_size(len(prepared.images), name)
        if prepared.groups is not None:
            _, *dealt = _dealt(prepared.groups, self.n_test)
            if self.n_train > (most := min(map(len, dealt))):
                self._refuse(f"{name} in groups", len(prepared.images), most)

    def _refuse(self, name: str, count: int, most: int) -> None:
        raise UserError(
            f"n_train={self.n_train}: {name} has {count} images, and two disjoint subsets beside {self.n_test} "
            f"held-out ones leave at most {most}"
        )

    def training_images(self, prepared: Prepared) -> "Tensor":
        """The training images, (n_train, C, H, W) as they are stored.

        Raises:
            UserError: there are not as many.
        """
        self.check(prepared, "the data set")
        return _tensor(prepared, self.rows(prepared.groups))

    def held_out_images(self, prepared: Prepared) -> "Tensor":
        """The held-out images, (n_test, C, H, W) as they are stored."""
        return _tensor(prepared, self.held_out_rows(prepared.groups))


def _dealt(groups: NDArray[np.int64], n_test: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The rows, ascending, that whole groups give to the held-out images, to A and to B."""
    owners = np.empty(int(groups.max(initial=-1)) + 1, np.int64)
    dealt = [0, 0, 0]
    for group, size in enumerate(np.bincount(groups).tolist()):
        owner = 0 if dealt[0] < n_test else 1 if dealt[1] <= dealt[2] else 2
        owners[group] = owner
        dealt[owner] += size
    held_out, a, b = (np.flatnonzero(owners[groups] == owner) for owner in range(3))
    return held_out, a, b


def subset_hash(images: "Tensor") -> str:
    """Sixteen hexadecimal digits of the sha256 of the images' bytes, in order."""
    return hashlib.sha256(images.numpy().tobytes()).hexdigest()[:16]


def _tensor(prepared: Prepared, rows: NDArray[np.int64]) -> "Tensor":
    import torch  # slow, and a plan needs only the counts above

    images = torch.from_numpy(prepared.images[rows])
    return images if images.ndim == 4 else images.unsqueeze(1)
