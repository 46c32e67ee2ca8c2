import numpy as np
import pytest

from gahb.data.c_alpha import CHUNK, CAlpha, _integrate
from gahb.data.disks import Disks, draw


@pytest.mark.parametrize("source", [CAlpha(alpha=2.0), CAlpha(alpha=1.0), Disks()])
def test_chunks_are_functions_of_their_index(source: CAlpha | Disks) -> None:
    first, again, second = source.chunk(16, 0), source.chunk(16, 0), source.chunk(16, 1)
    assert first.shape == (CHUNK, 16, 16) and first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)
    assert len(np.unique(np.concatenate([first, second]), axis=0)) == 2 * CHUNK


@pytest.mark.parametrize("alpha", [1.0, 2.0, 3.5])
@pytest.mark.parametrize("axes", [(1,), (1, 2)])
def test_integration_multiplies_the_spectrum(alpha: float, axes: tuple[int, ...]) -> None:
    side = 12
    noise = np.random.default_rng(0).uniform(-1, 1, (3,) + (side,) * len(axes))
    before, after = np.fft.fftn(noise, axes=axes), np.fft.fftn(_integrate(noise, alpha, axes), axes=axes)
    k = np.fft.fftfreq(side, 1 / side)
    norm = np.abs(k) if len(axes) == 1 else np.hypot(k[:, None], k[None, :])
    norm.flat[0] = 1.0  # the zero bin takes its neighbour's value
    np.testing.assert_allclose(after, before * norm**-alpha, atol=1e-10)


def test_c_alpha_images_are_two_backgrounds_that_touch_the_ends_of_the_range() -> None:
    images = CAlpha(alpha=3.0).chunk(40, 0)
    assert (images.max(axis=(1, 2)) > 200).mean() > 0.9  # one background is rescaled to end at 1 …
    assert (images.min(axis=(1, 2)) < 55).mean() > 0.9  # … and the other to begin at 0


def test_regular_images_have_their_steps_along_one_contour() -> None:
    images = CAlpha(alpha=5.0).chunk(64, 0).astype(float) / 255
    steps = np.abs(np.diff(images, axis=1))  # down the columns, across the contour
    top = np.sort(steps, axis=1)[:, -3:, :].sum(axis=1) / steps.sum(axis=1)
    assert np.median(top) > 0.4  # 3 pixels of the 63 hold that much of a column's variation


def test_regularity_grows_with_alpha() -> None:
    def roughness(alpha: float) -> float:
        images = CAlpha(alpha=alpha).chunk(32, 0).astype(float)
        return float(np.median(np.abs(np.diff(images, 2, axis=2))))

    assert roughness(1.0) > roughness(2.0) > roughness(4.0)


def test_disks_have_the_area_and_intensity_of_their_parameters() -> None:
    radius, side = np.array([3.3, 6.0]), 40
    images = draw(side, np.array([[20.0, 12.5], [18.2, 25.0]]), radius, np.array([0.9, 0.2]), np.array([0.1, 0.7]))
    share = (images.sum(axis=(1, 2)) / side**2 - [0.1, 0.7]) / [0.8, -0.5]
    np.testing.assert_allclose(share * side**2, np.pi * radius**2, rtol=0.015)
    np.testing.assert_allclose(images[0, 20, 18], 0.9)
    np.testing.assert_allclose(images[1, 0, 0], 0.7)


def test_disks_move_smoothly() -> None:
    one = np.ones(1)
    at = [draw(24, np.array([[12 + shift], [12.3]]), 5 * one, one, 0 * one) for shift in (0, 1e-3, 2e-3)]
    np.testing.assert_allclose(at[2] - at[1], at[1] - at[0], atol=2e-4)
    assert np.abs(at[1] - at[0]).max() > 5e-4
