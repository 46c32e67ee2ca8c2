import numpy as np
import pytest
import torch

from gahb.data import similarity


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


def smooth_images(count: int, side: int, seed: int) -> np.ndarray:
    """Integrated noise, which coarse versions show well, unlike white noise."""
    noise = np.random.default_rng(seed).normal(size=(count, 1, side, side))
    walks = noise.cumsum(axis=2).cumsum(axis=3)
    low, high = walks.min(axis=(2, 3), keepdims=True), walks.max(axis=(2, 3), keepdims=True)
    return np.rint(255 * (walks - low) / (high - low)).astype(np.uint8)


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("side", [3, 13, 24])
@pytest.mark.parametrize("block", [64, 2048])
def test_searching_coarse_images_first_changes_nothing(
    centred: bool, side: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(similarity, "BLOCK", block)
    samples, images = smooth_images(20, side, 0), smooth_images(700, side, 1)
    images[650:] = images[:50]
    full = reference(samples, images, centred)[:, :650]
    best, rows = similarity.closest(torch.from_numpy(samples), torch.from_numpy(images), centred=centred)
    np.testing.assert_allclose(best, full.max(axis=1), atol=1e-6)
    assert np.array_equal(rows, full.argmax(axis=1))


def test_of_equal_images_the_first_is_closest() -> None:
    images = torch.from_numpy(smooth_images(5, 12, 0)).repeat(8, 1, 1, 1)
    best, rows = similarity.closest(images.float() / 255, images, centred=True)
    assert rows.tolist() == [0, 1, 2, 3, 4] * 8
    torch.testing.assert_close(best, torch.ones(40))


def test_without_images_nothing_is_close() -> None:
    best, rows = similarity.closest(torch.rand(2, 1, 4, 4), torch.zeros(0, 1, 4, 4, dtype=torch.uint8), centred=False)
    assert best.isneginf().all() and rows.tolist() == [0, 0]


def test_without_samples_there_is_nothing_to_find() -> None:
    images = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8)
    assert [len(found) for found in similarity.closest(torch.empty(0, 1, 8, 8), images, centred=True)] == [0, 0]


def test_two_closest_distances_are_the_least_of_all() -> None:
    rng = np.random.default_rng(3)
    samples, images = rng.uniform(0, 1, (5, 1, 6, 6)), rng.integers(0, 256, (24, 1, 6, 6), dtype=np.uint8)
    full = np.linalg.norm((samples[:, None] - images[None] / 255).reshape(5, 24, -1), axis=2)
    found = similarity.two_closest_distances(torch.from_numpy(samples), torch.from_numpy(images))
    np.testing.assert_allclose(found, np.sort(full, axis=1)[:, :2], atol=1e-5)


def test_near_duplicates_are_the_later_ones_of_each_pair_above_the_threshold() -> None:
    rng = np.random.default_rng(2)
    images = rng.normal(size=(40, 4, 4)).astype(np.float32)
    images[30] = -3 * images[4] + 5  # negative and shifted: |cosine| of mean-removed images is 1
    images[31] = images[20] + 0.01 * images[1]
    cosines = np.abs(reference(images, images, centred=True))
    expected = (np.tril(cosines, -1) > 0.6).any(axis=1)
    found = similarity.near_duplicates(images, 0.6)
    assert found[30] and found[31] and not found[:2].all()
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("threshold", [0.5, 0.9, 0.97])
@pytest.mark.parametrize("block", [7, 64, 2048])
def test_duplicates_do_not_depend_on_blocks(threshold: float, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similarity, "BLOCK", block)
    images = smooth_images(300, 10, 2)[:, 0].astype(np.float32)
    images[200] = images[100] = images[0]  # an image that is dropped still drops those after it
    expected = (np.tril(np.abs(reference(images, images, centred=True)), -1) > threshold).any(axis=1)
    assert np.array_equal(similarity.near_duplicates(images, threshold), expected)


def test_at_the_threshold_itself_double_precision_decides() -> None:
    rng = np.random.default_rng(4)
    images = rng.normal(size=(60, 6, 6)).astype(np.float32)
    cosines = np.tril(np.abs(reference(images, images, centred=True)), -1)
    for exact in np.sort(cosines, axis=None)[-20:]:
        for threshold in (exact - 1e-12, exact + 1e-12):
            expected = (cosines > threshold).any(axis=1)
            assert np.array_equal(similarity.near_duplicates(images, threshold), expected)


def test_constant_images_resemble_nothing() -> None:
    flat = np.ones((3, 4, 4), np.float32)
    assert not similarity.near_duplicates(flat, 0.95).any()
    a = torch.ones(2, 1, 4, 4)
    assert similarity.cosine(a, a, centred=True).tolist() == [0, 0]
