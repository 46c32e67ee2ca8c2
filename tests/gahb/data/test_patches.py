import numpy as np
import pytest
import torch

from gahb.data import patches
from gahb.data.patches import aligned, anywhere


def cosine(p: np.ndarray, q: np.ndarray) -> float:
    return float(np.corrcoef(p.ravel(), q.ravel())[0, 1])


def test_the_closest_patches_are_those_of_a_search_through_all(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    samples = rng.uniform(size=(3, 3, 9, 8))
    images = rng.integers(0, 256, (7, 3, 9, 8), dtype=np.uint8)
    size = 4  # two by two patches; the ninth row is left over
    near, rows, far = np.zeros((3, 4)), np.zeros((3, 4), int), np.zeros((3, 4))
    for n, sample in enumerate(samples):
        for k, (y, x) in enumerate((y, x) for y in (0, 4) for x in (0, 4)):
            patch = sample[:, y : y + size, x : x + size]
            here = [cosine(patch, image[:, y : y + size, x : x + size]) for image in images]
            near[n, k], rows[n, k] = max(here), int(np.argmax(here))
            every = [image[:, i : i + size, j : j + size] for image in images for i in range(6) for j in range(5)]
            far[n, k] = max(cosine(patch, other) for other in every)
    drawn, stored = torch.from_numpy(samples).float(), torch.from_numpy(images)
    for numbers in (patches.NUMBERS, 1000):  # all at once, and in blocks
        monkeypatch.setattr(patches, "NUMBERS", numbers)
        found, sources = aligned(drawn, stored, size)
        np.testing.assert_allclose(found, near, atol=1e-5)
        np.testing.assert_array_equal(sources, rows)
        np.testing.assert_allclose(anywhere(drawn, stored, size), far, atol=1e-5)


def test_a_patch_moved_and_of_another_contrast_is_found_anywhere_but_not_in_place() -> None:
    torch.manual_seed(0)
    images = torch.randint(0, 2**16, (1, 1, 12, 12)).to(torch.uint16)
    sample = torch.full((1, 1, 12, 12), 0.5)
    sample[0, 0, :4, :4] = 0.3 + 0.2 * images[0, 0, 5:9, 7:11].float() / 65535
    near, far = aligned(sample, images, 4)[0][0], anywhere(sample, images, 4)[0]
    assert far[0] > 1 - 1e-5 and near[0] < 0.9
    assert near[1:].isnan().all() and far[1:].isnan().all()  # flat ones are left out


def test_flat_patches_of_images_resemble_nothing() -> None:
    torch.manual_seed(0)
    images = torch.full((2, 1, 8, 8), 100, dtype=torch.uint8)
    images[:, :, ::2] += 1  # less than CONTRAST
    sample = torch.rand(1, 1, 8, 8)
    assert (aligned(sample, images, 4)[0] == 0).all() and (anywhere(sample, images, 4) == 0).all()
    assert aligned(sample, images[:0], 4)[0].isnan().all()
