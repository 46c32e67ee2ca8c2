import numpy as np
import pytest
import torch

from gahb import similarity


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks, the last one short."""
    monkeypatch.setattr(similarity, "BLOCK", 7)


def reference(a: np.ndarray, b: np.ndarray, centred: bool) -> np.ndarray:
    a, b = (x.reshape(len(x), -1).astype(float) for x in (a, b))
    if centred:
        a, b = (x - x.mean(axis=1, keepdims=True) for x in (a, b))
    return (a @ b.T) / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)[None, :]


@pytest.mark.parametrize("centred", [False, True])
def test_cosines_are_those_of_the_definition(centred: bool) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0, 1, (2, 9, 1, 6, 6))
    full = reference(a, b, centred)
    tensors = torch.from_numpy(a), torch.from_numpy(b)
    np.testing.assert_allclose(similarity.cosine(*tensors, centred=centred), full.diagonal(), atol=1e-6)
    off = (full.sum(axis=1) - full.diagonal()) / 8
    np.testing.assert_allclose(similarity.mismatched_cosine(*tensors, centred=centred), off, atol=1e-6)


@pytest.mark.parametrize("centred", [False, True])
def test_closest_is_the_best_of_all(centred: bool) -> None:
    rng = np.random.default_rng(1)
    samples, images = rng.uniform(0, 1, (5, 1, 6, 6)), rng.integers(0, 256, (24, 1, 6, 6), dtype=np.uint8)
    full = reference(samples, images, centred)
    best, rows = similarity.closest(torch.from_numpy(samples), torch.from_numpy(images), centred=centred)
    np.testing.assert_allclose(best, full.max(axis=1), atol=1e-6)
    assert np.array_equal(rows, full.argmax(axis=1))


def test_an_image_is_closest_to_itself() -> None:
    images = torch.randint(0, 256, (20, 1, 5, 5), dtype=torch.uint8)
    best, rows = similarity.closest(images.float() / 255, images, centred=True)
    assert torch.equal(rows, torch.arange(20))
    torch.testing.assert_close(best, torch.ones(20))


def test_two_closest_distances_are_the_least_of_all() -> None:
    rng = np.random.default_rng(3)
    samples, images = rng.uniform(0, 1, (5, 1, 6, 6)), rng.integers(0, 256, (24, 1, 6, 6), dtype=np.uint8)
    full = np.linalg.norm((samples[:, None] - images[None] / 255).reshape(5, 24, -1), axis=2)
    found = similarity.two_closest_distances(torch.from_numpy(samples), torch.from_numpy(images))
    np.testing.assert_allclose(found, np.sort(full, axis=1)[:, :2], atol=1e-5)


def test_near_duplicates_are_the_later_ones_of_each_pair_above_the_threshold() -> None:
    rng = np.random.default_rng(2)
    images = rng.normal(size=(40, 16)).astype(np.float32)
    images[30] = -3 * images[4] + 5  # negative and shifted: |cosine| of mean-removed images is 1
    images[31] = images[20] + 0.01 * images[1]
    cosines = np.abs(reference(images, images, centred=True))
    expected = (np.tril(cosines, -1) > 0.6).any(axis=1)
    found = similarity.near_duplicates(images, 0.6)
    assert found[30] and found[31] and not found[:2].all()
    assert np.array_equal(found, expected)


def test_constant_images_resemble_nothing() -> None:
    flat = np.ones((3, 16), np.float32)
    assert not similarity.near_duplicates(flat, 0.95).any()
    a = torch.ones(2, 1, 4, 4)
    assert similarity.cosine(a, a, centred=True).tolist() == [0, 0]
