from pathlib import Path

import pytest
import torch

from gahb.errors import UserError
from gahb.models.layers import Denoiser, initialise
from gahb.training import weights
from gahb.trial import Trial

TRIAL = {"dataset": "c_alpha", "resolution": 8, "width": 4, "blocks": 1, "n_train": 1}


@pytest.fixture
def denoiser() -> Denoiser:
    return Denoiser(Trial.of(TRIAL).architecture.build().apply(initialise)).eval()


def save(folder: Path, denoiser: Denoiser) -> None:
    weights.save(folder, denoiser, {"trial": TRIAL, "data_hash": "a", "subset_hash": "b"})
    state = denoiser.net.state_dict()
    weights.save_weight_history(
        folder, {seen: {key: seen * value for key, value in state.items()} for seen in (64, 128)}
    )


def test_what_was_saved_is_read(denoiser: Denoiser, tmp_path: Path) -> None:
    save(tmp_path, denoiser)
    read, card = weights.read(tmp_path)
    assert not read.training and card["trial"] == TRIAL
    stored = denoiser.state_dict()
    assert all(torch.equal(value, stored[key]) for key, value in read.state_dict().items())


@pytest.mark.parametrize("folder", ["weight_history", "course"])
def test_the_weight_history_is_read_under_its_old_name_too(denoiser: Denoiser, folder: str, tmp_path: Path) -> None:
    save(tmp_path, denoiser)
    (tmp_path / "weight_history").rename(tmp_path / folder)
    history = dict(weights.read_weight_history(tmp_path))
    assert list(history) == [64, 128]
    for seen, read in history.items():
        first = next(iter(denoiser.parameters()))
        assert torch.equal(next(iter(read.parameters())), seen * first)


def test_weights_of_another_network_are_refused(denoiser: Denoiser, tmp_path: Path) -> None:
    save(tmp_path, denoiser)
    card = tmp_path / "card.json"
    card.write_text(card.read_text().replace('"width": 4', '"width": 8'))
    with pytest.raises(UserError, match="looks like a UNet but its"):
        weights.read(tmp_path)
