"""Trained weights on their way out and back in: a safetensors file with a JSON card beside it.

The card says what the weights are: format version, the trial's flat configuration, its signature, the hashes of data
set and training subset, images seen, final metrics and code version.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gahb.config_fields import check_range
from gahb.errors import UserError
from gahb.models.architectures import ARCHITECTURES, Architecture
from gahb.models.layers import Denoiser
from gahb.models.loading import fit
from gahb.storage.local import content_of, opened
from gahb.training.checkpoint_names import WEIGHT_HISTORY, WEIGHT_HISTORY_0_1
from gahb.trial import Trial

WEIGHTS, CARD = "weights.safetensors", "card.json"
FORMAT = 1

LARGEST = 1024
"""The largest resolution at which an imported model is sampled, in pixels a side."""

MOST_OF_A_CARD = 1 << 20
"""Bytes of a card."""


def save(folder: Path, denoiser: Denoiser, card: dict[str, Any]) -> None:
    """Write the denoiser's weights and its card into a folder."""
    save_file({k: v.detach().cpu().contiguous() for k, v in denoiser.net.state_dict().items()}, folder / WEIGHTS)
    (folder / CARD).write_text(json.dumps({"format": FORMAT, **card}, indent=2, ensure_ascii=False))


def save_weight_history(folder: Path, history: dict[int, dict[str, Tensor]]) -> None:
    """Write the weights at every evaluation, images seen → weights, into a folder beside the last ones."""
    (folder / WEIGHT_HISTORY).mkdir()
    for images_seen, tensors in history.items():
        save_file(tensors, folder / WEIGHT_HISTORY / _name_after(images_seen))


def read(folder: Path, device: torch.device | str = "cpu") -> tuple[Denoiser, dict[str, Any]]:
    """The denoiser in evaluation mode and its card, from a folder that `save` wrote.

    Raises:
        UserError: what is in the folder is no model, or damaged.
    """
    card = read_card(folder)
    with _readable(folder / WEIGHTS):
        denoiser = fit(_architecture(card), _tensors(folder / WEIGHTS))
    return denoiser.to(device), card


def read_card(folder: Path) -> dict[str, Any]:
    """The card alone; see `read`."""
    with _readable(folder / CARD):
        card: dict[str, Any] = json.loads(content_of(folder / CARD, MOST_OF_A_CARD))
        if "trial" in card:
            Trial.of(card["trial"], card.get("plugins", ()))
            _check_words(card, "data_hash", "subset_hash")
        else:
            check_imported(_architecture(card), card["resolution"])
        return card


def check_imported(architecture: Architecture, resolution: Any) -> None:
    """Raise UserError unless an imported model can be sampled at a resolution."""
    if type(resolution) is not int:
        raise UserError(f"resolution={resolution!r}: must be a whole number")
    check_range(LARGEST, resolution=resolution)
    architecture.check(resolution)


def _tensors(file: Path) -> dict[str, Tensor]:
    opened(file).close()  # what is none that was written here ends in an error
    return load_file(file)


def read_weight_history(folder: Path, device: torch.device | str = "cpu") -> Iterator[tuple[int, Denoiser]]:
    """Images seen and the denoiser at that moment, for every evaluation of a training, in order; see `read`."""
    architecture = _architecture(read_card(folder))
    for file in sorted(_history(folder).glob("images-*.safetensors")):
        with _readable(file):
            images_seen, denoiser = int(file.stem.removeprefix("images-")), fit(architecture, _tensors(file))
        yield images_seen, denoiser.to(device)


def read_after(folder: Path, images_seen: int, device: torch.device | str = "cpu") -> Denoiser:
    """The denoiser at the evaluation after so many images; see `read`."""
    card = read_card(folder)
    if images_seen == card.get("images_seen"):
        return read(folder, device)[0]
    file = _history(folder) / _name_after(images_seen)
    with _readable(file):
        return fit(_architecture(card), _tensors(file)).to(device)


def _history(folder: Path) -> Path:
    stored = folder / WEIGHT_HISTORY
    return stored if stored.exists() else folder / WEIGHT_HISTORY_0_1


def _name_after(images_seen: int) -> str:
    return f"images-{images_seen:012d}.safetensors"


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """A file that may have come from anywhere is read here: whatever is wrong with it is the file's fault."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    except Exception as error:
        raise UserError(f"{file} cannot be read ({type(error).__name__}: {error})") from None


def _check_words(card: dict[str, Any], *keys: str) -> None:
    for key in keys:
        if not isinstance(card[key], str):
            raise TypeError(key)


def _architecture(card: dict[str, Any]) -> Architecture:
    if "trial" in card:
        return Trial.of(card["trial"], card.get("plugins", ())).architecture
    options = dict(card["architecture"])
    return ARCHITECTURES[options.pop("architecture")](**options)
