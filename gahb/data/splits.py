"""Disjoint subsets: A and B of N images each, and a held-out test set common to both.

With T held-out images, the rows of a prepared data set are dealt out as

    held-out: 0 … T-1        A: T, T+2, T+4, …        B: T+1, T+3, T+5, …

so the three are disjoint by construction, and nested in N: the first 100 images of A are in its first 1000.
"""

import hashlib
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gahb.data.dataset import Prepared
from gahb.errors import UserError
from gahb.trial import SUBSETS, Trial

if TYPE_CHECKING:
    from torch import Tensor


def needed(trial: Trial) -> int:
    """Images that the data set must have for this trial and its counterpart on the other subset."""
    return trial.n_test + 2 * trial.n_train


def check_size(trial: Trial, count: int, name: str) -> None:
    """Raise UserError if two subsets of N and the held-out set do not fit in `count` images."""
    if needed(trial) > count:
        most = max(0, (count - trial.n_test) // 2)
        raise UserError(
            f"n_train={trial.n_train}: {name} has {count} images, and two disjoint subsets beside {trial.n_test} "
            f"held-out ones leave at most {most}"
        )


def rows(subset: str, n_train: int, n_test: int) -> NDArray[np.int64]:
    """Rows of the training images of a subset, (n_train,)."""
    return n_test + SUBSETS.index(subset) + 2 * np.arange(n_train)


def training_images(prepared: Prepared, trial: Trial) -> "Tensor":
    """The trial's training images, (n_train, 1, H, W) uint8.

    Raises:
        UserError: there are not as many.
    """
    check_size(trial, len(prepared.images), trial.dataset.name)
    return _tensor(prepared, rows(trial.subset, trial.n_train, trial.n_test))


def held_out_images(prepared: Prepared, trial: Trial) -> "Tensor":
    """The held-out images, (n_test, 1, H, W) uint8."""
    return _tensor(prepared, np.arange(trial.n_test))


def subset_hash(images: "Tensor") -> str:
    """Sixteen hexadecimal digits of the sha256 of the images' bytes, in order."""
    return hashlib.sha256(images.numpy().tobytes()).hexdigest()[:16]


def _tensor(prepared: Prepared, rows: NDArray[np.int64]) -> "Tensor":
    import torch  # slow, and a plan needs only the counts above

    return torch.from_numpy(prepared.images[rows]).unsqueeze(1)
