import hashlib

import numpy as np
import pytest

from gahb.data.dataset import Prepared
from gahb.data.splits import SUBSETS, Split, subset_hash
from gahb.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (100, 6, 6), dtype=np.uint8)
PREPARED = Prepared(IMAGES, {})


def test_subsets_and_held_out_set_deal_out_every_image_once() -> None:
    a, b = (Split(subset, 40, 20) for subset in SUBSETS)
    assert a.needed == b.needed == 100
    parts = [a.training_images(PREPARED), b.training_images(PREPARED), a.held_out_images(PREPARED)]
    assert [part.shape for part in parts] == [(40, 1, 6, 6), (40, 1, 6, 6), (20, 1, 6, 6)]
    assert np.array_equal(a.held_out_images(PREPARED), b.held_out_images(PREPARED))
    everything = np.concatenate(parts)[:, 0]
    assert {image.tobytes() for image in everything} == {image.tobytes() for image in IMAGES}


def test_the_rows_are_those_of_the_definition() -> None:
    assert Split("A", 4, 20).rows().tolist() == [20, 22, 24, 26]
    assert Split("B", 3, 0).rows().tolist() == [1, 3, 5]


@pytest.mark.parametrize("subset", SUBSETS)
def test_subsets_are_nested_in_their_size(subset: str) -> None:
    ten, forty = (Split(subset, n, 20).training_images(PREPARED) for n in (10, 40))
    assert np.array_equal(ten, forty[:10])


def test_the_hash_is_of_the_images_in_their_order() -> None:
    images = Split("A", 10, 20).training_images(PREPARED)
    assert subset_hash(images) == hashlib.sha256(IMAGES[20:40:2].tobytes()).hexdigest()[:16]
    assert len({subset_hash(x) for x in (images, images.flip(0), images[:9])}) == 3


def test_a_set_may_be_too_small() -> None:
    Split("A", 40, 20).check_size(100, "faces")
    with pytest.raises(UserError, match=r"n_train=41: faces has 100 images.* beside 20 held-out ones leave at most 40"):
        Split("A", 41, 20).check_size(100, "faces")
    with pytest.raises(UserError, match="at most 0"):
        Split("B", 1, 20).check_size(10, "faces")
    with pytest.raises(UserError, match="at most 40"):
        Split("B", 41, 20).training_images(PREPARED)
