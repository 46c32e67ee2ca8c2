from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gahb.data.c_alpha import CHUNK, CAlpha, _integrate
from gahb.data.dataset import Dataset
from gahb.data.disks import Disks
from gahb.data.image_ray import ImageRay
from gahb.data.manifold import Manifold
from gahb.data.sinusoids import Sinusoids
from gahb.data.source import Synthetic
from gahb.errors import UserError
from gahb.storage.local import Folder

MANIFOLDS = [(Disks(), 5), (Sinusoids(), 2), (ImageRay(), 1), (ImageRay(base="disks"), 1)]


@pytest.mark.parametrize(
    "source", [CAlpha(alpha=2.0), CAlpha(alpha=1.0), CAlpha(1.5, 8.0), *(source for source, _ in MANIFOLDS)]
)
def test_chunks_are_functions_of_their_index(source: Synthetic) -> None:
    first, again, second = source.chunk(16, 0), source.chunk(16, 0), source.chunk(16, 1)
    assert first.shape == (CHUNK, 16, 16) and first.dtype == np.uint16
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)
    different = len(np.unique(np.concatenate([first, second]), axis=0))
    assert different > 1.9 * CHUNK if isinstance(source, ImageRay) else different == 2 * CHUNK


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
    assert (images.max(axis=(1, 2)) > 51400).mean() > 0.9  # one background is rescaled to end at 1 …
    assert (images.min(axis=(1, 2)) < 14135).mean() > 0.9  # … and the other to begin at 0


def test_regular_images_have_their_steps_along_one_contour() -> None:
    images = CAlpha(alpha=5.0).chunk(64, 0) / 65535
    steps = np.abs(np.diff(images, axis=1))  # down the columns, across the contour
    top = np.sort(steps, axis=1)[:, -3:, :].sum(axis=1) / steps.sum(axis=1)
    assert np.median(top) > 0.4  # 3 pixels of the 63 hold that much of a column's variation


def test_regularity_grows_with_alpha() -> None:
    def roughness(alpha: float) -> float:
        images = CAlpha(alpha=alpha).chunk(32, 0).astype(float)
        return float(np.median(np.abs(np.diff(images, 2, axis=2))))

    assert roughness(1.0) > roughness(2.0) > roughness(4.0)


def test_contours_and_backgrounds_may_differ_in_regularity() -> None:
    assert CAlpha(3.0) == CAlpha(3.0, 3.0) and CAlpha(3.0).law() == {"law": "c_alpha", "version": 2, "alpha": 3.0}
    smooth, rough = CAlpha(1.5, 8.0).chunk(32, 0).astype(float), CAlpha(1.5).chunk(32, 0).astype(float)
    top = (smooth[:, 0] - rough[:, 0]) != 0  # the same contour stands between other backgrounds
    assert top.any()
    curvature = [np.median(np.abs(np.diff(images, 2, axis=2))) for images in (smooth, rough)]
    assert curvature[0] < curvature[1] / 2
    with pytest.raises(UserError, match="background_alpha"):
        CAlpha(2.0, -1.0)


def test_a_chunk_is_the_law_drawn_in_one_sequence() -> None:
    """Algorithm 2 on a chunk's random numbers in the order that is part of the law, image by image."""
    side, alpha, index = 20, 1.5, 3
    rng = np.random.default_rng([0xCA1FA, index])
    k = np.fft.fftfreq(side, 1 / side)
    line, plane = np.abs(k), np.hypot(k[:, None], k)
    line[0] = plane[0, 0] = 1

    def filtered(noise: np.ndarray) -> np.ndarray:
        spectrum = np.fft.fftn(noise) * (line if noise.ndim == 1 else plane) ** -alpha
        return np.fft.ifftn(spectrum).real

    contours, noise = rng.uniform(-1, 1, (CHUNK, side)), rng.random((2, CHUNK, side, side))
    low, high = rng.uniform(0, 1, (2, CHUNK))
    first = rng.integers(0, 2, CHUNK).astype(bool)
    for n, image in enumerate(CAlpha(alpha).chunk(side, index)):
        one, other = (filtered(noise[b, n]) for b in range(2))
        bright = low[n] + (1 - low[n]) * (one - one.min()) / np.ptp(one)
        dark = high[n] * (other - other.min()) / np.ptp(other)
        mask = np.arange(side)[:, None] >= np.rint(filtered(contours[n]) * side) + side // 2
        padded = np.pad(mask.astype(float), ((1, 0), (1, 0)), mode="reflect")
        share = (padded[1:, 1:] + padded[:-1, 1:] + padded[1:, :-1] + padded[:-1, :-1]) / 4
        share = share if first[n] else 1 - share
        np.testing.assert_array_equal(image, np.rint(65535 * (share * bright + (1 - share) * dark)))


def test_hashes_hold(tmp_path: Path) -> None:
    # Prepared sets and the signatures of stored trials are found by these.
    assert Dataset(CAlpha(2.0), 16).hash(Folder(tmp_path)) == "932e4caade3a02e5"
    assert Dataset(Disks(), 16).hash(Folder(tmp_path)) == "506d8ac80e56efd7"


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_images_drawn_at_one_size_are_averages_of_one_another(alpha: float) -> None:
    large, small = (CAlpha(alpha, drawn_at=48).chunk(side, 1) / 65535 for side in (48, 12))
    np.testing.assert_allclose(small, large.reshape(CHUNK, 12, 4, 12, 4).mean(axis=(2, 4)), atol=2 / 65535)
    with pytest.raises(UserError, match="multiple of the resolution, 20"):
        Dataset(CAlpha(alpha, drawn_at=48), 20)


def test_sizes_share_one_law_where_images_are_drawn_at_one_size() -> None:
    def spread(side: int, drawn_at: int) -> float:
        """Standard deviation of the share of the upper region, over images of two flat regions."""
        images = CAlpha(2.0, 20.0, drawn_at=drawn_at).chunk(side, 0) / 65535
        top, bottom = images[:, :1, :], images[:, -1:, :]
        return float((np.abs(images - bottom) > np.abs(images - top)).mean(axis=(1, 2)).std())

    assert spread(16, 128) == pytest.approx(spread(64, 128), rel=0.15)
    assert spread(16, 0) > 1.3 * spread(64, 0)


def test_multiples_of_an_image_stay_on_a_line_beyond_what_a_denoiser_reaches() -> None:
    image = ImageRay().chunk(24, 0) / 65535
    exact = ImageRay().draw(24, ImageRay().parameters(24, 0))
    rounding = np.square(image - exact).mean()
    assert -10 * np.log10(rounding) == pytest.approx(10 * np.log10(12 * 65535**2), abs=0.2)  # 107 dB


def test_disks_have_the_area_and_intensity_of_their_parameters() -> None:
    side, radius = 40, np.array([3.3, 6.0])
    images = Disks().draw(side, np.array([[20.0, 18.2, 3.3, 0.9, 0.1], [12.5, 25.0, 6.0, 0.2, 0.7]]))
    share = (images.sum(axis=(1, 2)) / side**2 - [0.1, 0.7]) / [0.8, -0.5]
    np.testing.assert_allclose(share * side**2, np.pi * radius**2, rtol=0.015)
    np.testing.assert_allclose(images[0, 20, 18], 0.9)
    np.testing.assert_allclose(images[1, 0, 0], 0.7)


def test_disks_move_smoothly() -> None:
    at = Disks().draw(24, np.array([[12 + shift, 12.3, 5, 1, 0] for shift in (0, 1e-3, 2e-3)]))
    np.testing.assert_allclose(at[2] - at[1], at[1] - at[0], atol=2e-4)
    assert np.abs(at[1] - at[0]).max() > 5e-4


@pytest.mark.parametrize("row", [0, CHUNK + 3])
@pytest.mark.parametrize(("source", "dimension"), MANIFOLDS)
def test_an_image_of_a_cone_lies_in_its_tangent_space(source: Manifold, dimension: int, row: int) -> None:
    image = source.draw(24, source.parameters_of(24, row)[None])[0]
    assert np.array_equal(np.rint(65535 * image), source.chunk(24, row // CHUNK)[row % CHUNK])
    basis = source.tangent_space(24, row)
    np.testing.assert_allclose(basis.T @ basis, np.eye(dimension), atol=1e-12)
    np.testing.assert_allclose(basis @ (basis.T @ image.reshape(-1)), image.reshape(-1), atol=1e-9)


@pytest.mark.parametrize(("source", "dimension"), MANIFOLDS)
def test_a_manifold_has_as_many_directions_as_it_says(source: Manifold, dimension: int) -> None:
    assert source.dimension == dimension == np.linalg.matrix_rank(source.tangents(24, 5))


@pytest.mark.parametrize(("source", "dimension"), MANIFOLDS)
def test_tangents_are_the_linear_part_of_a_small_move(source: Manifold, dimension: int) -> None:
    at = source.parameters_of(24, 5)
    move = 1e-4 * np.random.default_rng(0).normal(size=dimension)
    moved = (source.draw(24, (at + move)[None]) - source.draw(24, at[None])).reshape(-1)
    np.testing.assert_allclose(source.tangents(24, 5) @ move, moved, atol=2e-8)


def test_a_sinusoids_tangents_are_two_waves_a_quarter_period_apart() -> None:
    intensity, phase = Sinusoids().parameters_of(20, 7)
    along, across = Sinusoids().tangents(20, 7).T.reshape(2, 20, 20)
    t = 2 * np.pi * (np.arange(20) + 0.5) / 20
    np.testing.assert_allclose(along, np.tile((1 + np.sin(t + phase)) / 2, (20, 1)), atol=1e-8)
    np.testing.assert_allclose(across, np.tile(intensity * np.sin(t + phase + np.pi / 2) / 2, (20, 1)), atol=1e-8)
    assert abs((along * across).sum()) < 1e-6


def test_a_ray_holds_multiples_of_one_image() -> None:
    images = ImageRay().draw(16, ImageRay().parameters(16, 0)).reshape(CHUNK, -1)
    assert np.linalg.matrix_rank(images) == 1
    base = CAlpha(2.0).chunk(16, 0)[0].reshape(-1) / 65535
    np.testing.assert_allclose(images / base.max(), ImageRay().parameters(16, 0) * base / base.max())
    with pytest.raises(UserError, match=r"base=faces: no such file.*c_alpha, disks"):
        ImageRay(base="faces").law()


def test_a_ray_may_go_through_an_image_of_ones_own(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 30), dtype=np.uint8)
    for name in ("a.png", "b.png"):
        Image.fromarray(pixels).save(tmp_path / name)
    rays = [ImageRay(base=str(path)) for path in (tmp_path / "a.png", tmp_path / "b.png", tmp_path)]
    assert rays[0].law() == rays[1].law() == rays[2].law(), "the image counts, not where it lies"
    assert rays[0].law() != ImageRay().law()
    scales = rays[0].parameters(24, 0)[:2]
    np.testing.assert_allclose(rays[0].draw(24, scales), scales[:, :, None] * (pixels[:, 3:27] / 255))
    with pytest.raises(UserError, match="only 24 pixels wide"):
        rays[0].chunk(32, 0)


def test_images_of_one_pixel() -> None:
    for source in (CAlpha(2.0), Disks(), Sinusoids()):
        assert source.chunk(1, 0).shape == (64, 1, 1)
