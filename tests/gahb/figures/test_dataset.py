from pathlib import Path

import numpy as np
import pytest
import torch

from gahb.data.dataset import Prepared, prepare
from gahb.data.similarity import near_duplicates
from gahb.data.splits import Split
from gahb.figures import dataset
from gahb.storage.local import Folder
from gahb.trial import Trial

N = 150


def prepared(storage: Path, **options: object) -> tuple[Prepared, Split]:
    trial = Trial.of({"dataset": "c_alpha", "resolution": 20, "n_train": N, "n_test": 10, **options})
    return prepare(trial.dataset, Folder(storage), trial.split.needed), trial.split


def test_closest_pairs_are_the_largest_cosines_between_a_and_b(tmp_path: Path) -> None:
    data, split = prepared(tmp_path)
    cosines = dataset.closest_pairs(data, split)
    a, b = (np.stack([image.reshape(-1).astype(float) for image in data.images[10 + k :: 2]]) for k in (0, 1))
    by_hand = np.corrcoef(a, b)[:N, N:].max(axis=1)  # 20×20 images are their own thumbnails
    np.testing.assert_allclose(cosines, by_hand, atol=1e-5)


def test_shuffled_pixels_are_put_back(tmp_path: Path) -> None:
    plain, shuffled = prepared(tmp_path, resolution=40), prepared(tmp_path, resolution=40, shuffled=True)
    assert np.array_equal(dataset.closest_pairs(*plain), dataset.closest_pairs(*shuffled))
    rows = np.arange(5)
    assert np.array_equal(dataset.shown(plain[0], rows), dataset.shown(shuffled[0], rows))
    assert not np.array_equal(plain[0].images[:5], shuffled[0].images[:5])


def test_a_pair_above_the_threshold_is_a_duplicate(tmp_path: Path) -> None:
    data, split = prepared(tmp_path)
    a, b = (data.images[Split(s, N, 10).rows()].astype(np.float32) for s in "AB")
    cosines = dataset.closest_pairs(data, split)
    for i in (int(cosines.argmax()), int(cosines.argmin())):
        dropped = near_duplicates(np.concatenate([b, a[i : i + 1]]), 0.9)[-1]
        assert dropped or cosines[i] <= 0.9


@pytest.mark.parametrize("count", [1, 12, 13, 200])
def test_a_contact_sheet_has_as_many_rows_as_it_needs(count: int) -> None:
    figure = dataset.contact_sheet(torch.zeros(count, 1, 8, 8))
    assert len(figure.axes[0].get_yticks()) == min(8, -(-count // 12))


def test_the_histogram_counts_every_pair() -> None:
    cosines = np.float32([-0.3, 0.1, 0.5, 0.96, 1.0])
    axes = dataset.closest_pairs_histogram(cosines, 0.95).axes[0]
    assert sum(bar.get_height() for bar in axes.patches) == len(cosines)  # type: ignore[attr-defined]
    assert axes.get_lines()[0].get_xdata()[0] == 0.95  # type: ignore[index]
