"""Images in colour, from the files to the last analysis, and what they have in common with gray ones."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from gahb_analysis.models import load
from PIL import Image

from gahb.data import similarity
from gahb.data.dataset import Dataset, Prepared, prepare
from gahb.data.image_files import ImageFiles
from gahb.data.intensity import unit
from gahb.data.pixel_shuffling import unshuffle
from gahb.denoising import jacobian, sampling
from gahb.denoising.analytic import Empirical
from gahb.errors import UserError
from gahb.grids import grid
from gahb.models.architectures import ARCHITECTURES
from gahb.models.contract import check_network
from gahb.storage.local import Folder
from gahb.tracking import lookup
from gahb.trial import Trial
from tests.helpers import TINY, Ended, Place

SIDE, COUNT = 16, 90

SETTINGS = {**TINY, "resolution": SIDE, "images": 640, "n_test": 20, "color": True}


def save(folder: Path, images: np.ndarray, name: str) -> str:
    np.save(folder / name, images)
    return str(folder / name)


def smooth(count: int, channels: int) -> np.ndarray:
    """(count, 24, 24, channels) uint8, waves of many directions and colours."""
    rng = np.random.default_rng(0)
    t = np.arange(24) / 24
    direction, phase = rng.uniform(-2, 2, (2, count, 1, 1, 1)), rng.uniform(0, 2 * np.pi, (count, 1, 1, channels))
    wave = np.sin(2 * np.pi * (direction[0] * t[:, None, None] + direction[1] * t[:, None]) + phase)
    return np.rint(127.5 * (1 + wave)).astype(np.uint8)


@pytest.fixture
def equal(tmp_path: Path) -> tuple[Prepared, Prepared]:
    """Gray images prepared as such, and in colour."""
    path = save(tmp_path, np.repeat(smooth(COUNT, 1), 3, axis=3), "equal.npy")
    storage = Folder(tmp_path / "storage")
    gray, colour = (prepare(Dataset(ImageFiles(path, color=c), SIDE), storage, 1) for c in (False, True))
    return gray, colour


def test_three_equal_channels_are_the_gray_image_each_in_the_same_row(equal: tuple[Prepared, Prepared]) -> None:
    gray, colour = equal
    assert colour.images.shape == (len(gray.images), 3, SIDE, SIDE) and gray.images.shape[1:] == (SIDE, SIDE)
    assert gray.manifest["hash"] != colour.manifest["hash"]
    assert gray.manifest["dropped_duplicates"] == colour.manifest["dropped_duplicates"]
    for channel in range(3):
        assert np.array_equal(colour.images[:, channel], gray.images)


def test_colours_are_kept(tmp_path: Path) -> None:
    colours = smooth(3, 3)
    for i, pixels in enumerate(colours):
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    Image.fromarray(colours[0, ..., 0]).save(tmp_path / "gray.png")
    source = ImageFiles(str(tmp_path), color=True)
    assert np.array_equal(source.square("1.png", source.frame), np.moveaxis(colours[1], 2, 0))
    assert np.array_equal(source.square("gray.png", source.frame), np.repeat(colours[None, 0, ..., 0], 3, axis=0))
    assert np.array_equal(
        ImageFiles(save(tmp_path, colours, "a.npy"), color=True).square("2", "centre")[1], colours[2, ..., 1]
    )


def test_one_permutation_shuffles_all_channels(tmp_path: Path) -> None:
    storage, path = Folder(tmp_path / "storage"), save(tmp_path, smooth(20, 3), "waves.npy")
    plain, shuffled = (prepare(Dataset(ImageFiles(path, color=True), SIDE, s), storage, 1) for s in (False, True))
    assert not np.array_equal(plain.images, shuffled.images)
    assert np.array_equal(unshuffle(np.asarray(shuffled.images)), plain.images)


def test_cosines_of_equal_channels_are_those_of_one(equal: tuple[Prepared, Prepared]) -> None:
    gray, colour = (torch.from_numpy(np.array(p.images)).reshape(len(p.images), -1, SIDE, SIDE) for p in equal)
    noise = torch.rand(4, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    for centred in (False, True):
        best, rows = similarity.closest(noise, gray, centred=centred)
        of_colour, same_rows = similarity.closest(noise.repeat(1, 3, 1, 1), colour, centred=centred)
        assert torch.equal(rows, same_rows) and torch.allclose(best, of_colour, atol=1e-6)


def test_the_optimum_averages_equal_channels_whose_noise_is_then_less(equal: tuple[Prepared, Prepared]) -> None:
    gray, colour = (unit(torch.from_numpy(np.array(p.images[:30]))).reshape(30, -1, SIDE, SIDE) for p in equal)
    sigma = 0.9
    y = colour[:4] + sigma * torch.randn(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    of_colour = Empirical(colour).at(sigma, colour)(y)
    of_mean = Empirical(gray).at(sigma / 3**0.5, gray)(y.mean(dim=1, keepdim=True))
    assert torch.allclose(of_colour, of_mean.repeat(1, 3, 1, 1), atol=1e-5)


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_networks_take_three_channels_and_their_counts_know_it(name: str, tmp_path: Path) -> None:
    path = save(tmp_path, smooth(5, 3), "waves.npy")
    flat = {"dataset": path, "resolution": SIDE, "n_train": 1, "architecture": name}
    gray, colour = (Trial.of({**flat, **({"color": True} if c else {})}).architecture for c in (False, True))
    check_network(colour, SIDE)
    parameters = sum(p.numel() for p in colour.build().parameters())
    assert sum(layer.parameters for layer in colour.counts(SIDE)) == parameters
    assert parameters > sum(p.numel() for p in gray.build().parameters())


def test_colour_is_refused_where_there_is_none() -> None:
    with pytest.raises(UserError, match="color=True does not apply to dataset=c_alpha"):
        Trial.of({**TINY, "n_train": 1, "color": True})


def test_a_gray_trial_says_nothing_of_colour(tmp_path: Path) -> None:
    flat = {**TINY, "dataset": save(tmp_path, smooth(5, 3), "waves.npy"), "n_train": 1}
    gray, colour = Trial.of(flat), Trial.of({**flat, "color": True})
    assert "color" not in gray.flat() and "image_channels" not in colour.flat() and Trial.of(colour.flat()) == colour
    assert Trial.of({**flat, "color": False}) == gray


@pytest.mark.slow
def test_a_sweep_in_colour_is_trained_paired_and_reported(
    command: Callable[..., Ended], ray_here: None, place: Place, tmp_path: Path
) -> None:
    path = save(tmp_path, smooth(COUNT, 3), "waves.npy")
    rows = place.launch(grid({**SETTINGS, "dataset": path, "n_train": (2, 16), "subset": ("A", "B")}))
    assert [row["state"] for row in rows] == ["finished"] * 4
    report = command("gahb-analyze", "report", "tiny", "--json", *place.flags).json
    assert not report["refused"]
    kinds = {run.kind for run in lookup.analyses(place.record, "tiny")}
    assert kinds >= {"curves", "pairs", "scaling", "memorization", "basis", "trajectories", "theory", "report"}
    model = load(place.context, lookup.find(place.record, "16x16-N16-A"))
    assert model.shape == (3, SIDE, SIDE)
    samples = sampling.sample(model.denoiser, 2, model.shape, mean=0.5)
    assert samples.images.shape == (2, 3, SIDE, SIDE)
    y = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    full = jacobian.full(model.denoiser, y)
    assert full.shape == (3 * SIDE**2, 3 * SIDE**2)
    assert torch.allclose(full @ y.flatten(), model.denoiser(y).flatten(), atol=1e-4)
