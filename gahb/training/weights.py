"""Trained weights on their way out and back in: a safetensors file with a JSON card beside it.

The card says what the weights are: format version, the trial's flat configuration, its signature, the hashes of data
set and training subset, images seen, final metrics and code version.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gahb.errors import UserError
from gahb.models.architectures import ARCHITECTURES, Architecture
from gahb.models.layers import Denoiser
from gahb.trial import Trial

WEIGHTS, CARD = "weights.safetensors", "card.json"
COURSE = "course"
"""Folder with the weights at every evaluation, named by images seen."""

FORMAT = 1


def save(folder: Path, denoiser: Denoiser, card: dict[str, Any]) -> None:
    """Write the denoiser's weights and its card into a folder."""
    save_file({k: v.detach().cpu().contiguous() for k, v in denoiser.net.state_dict().items()}, folder / WEIGHTS)
    (folder / CARD).write_text(json.dumps({"format": FORMAT, **card}, indent=2, ensure_ascii=False))


def save_weight_history(folder: Path, course: dict[int, dict[str, Tensor]]) -> None:
    """Write the weights at every evaluation, images seen → weights, into a folder beside the last ones."""
    (folder / COURSE).mkdir()
    for images_seen, tensors in course.items():
        save_file(tensors, folder / COURSE / f"images-{images_seen:012d}.safetensors")


def read(folder: Path, device: torch.device | str = "cpu") -> tuple[Denoiser, dict[str, Any]]:
    """The denoiser in evaluation mode and its card, from a folder that `save` wrote.

    Raises:
        UserError: what is in the folder is no model, or damaged.
    """
    card = read_card(folder)
    with _readable(folder / WEIGHTS):
        denoiser = fit(_architecture(card), load_file(folder / WEIGHTS))
    return denoiser.to(device), card


def read_card(folder: Path) -> dict[str, Any]:
    """The card alone; see `read`."""
    with _readable(folder / CARD):
        card: dict[str, Any] = json.loads((folder / CARD).read_text())
        if "trial" in card:
            Trial.of(card["trial"])
            _check_words(card, "data_hash", "subset_hash")
        else:
            _architecture(card).check(card["resolution"])
        return card


def read_weight_history(folder: Path, device: torch.device | str = "cpu") -> Iterator[tuple[int, Denoiser]]:
    """Images seen and the denoiser at that moment, for every evaluation of a training, in order; see `read`."""
    architecture = _architecture(read_card(folder))
    for file in sorted((folder / COURSE).glob("images-*.safetensors")):
        with _readable(file):
            images_seen, denoiser = int(file.stem.removeprefix("images-")), fit(architecture, load_file(file))
        yield images_seen, denoiser.to(device)


def fit(architecture: Architecture, tensors: Mapping[str, Tensor]) -> Denoiser:
    """The denoiser of an architecture with the given weights, in evaluation mode, on the CPU.

    Raises:
        UserError: they are not the architecture's, by name or shape. Nothing of its size has been allocated.
    """
    with torch.device("meta"):
        wanted = {key: tuple(tensor.shape) for key, tensor in architecture.build().state_dict().items()}
    found = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    if wanted != found:
        key = min(key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key))
        raise UserError(
            f"looks like a {type(architecture).__name__} but its {key} is {found.get(key, 'missing')} "
            f"where {wanted.get(key, 'nothing')} is expected"
        )
    net = architecture.build()
    net.load_state_dict({key: tensor.float() for key, tensor in tensors.items()})
    return Denoiser(net).eval()


def load(run: str, *, device: torch.device | str = "cpu", record: str | None = None) -> Denoiser:
    """The denoiser y ↦ f(y) of a finished trial or an imported model, in evaluation mode.

    Args:
        run: an MLflow run id, a unique prefix of one or of a signature, or a run's name.
        device: where the weights go.
        record: the record's URI; `MLFLOW_TRACKING_URI` or ./mlflow.db if left out.

    Returns:
        a module that maps noisy images (B, 1, H, W), float32, in units of the intensity range [0, 1], to denoised
        images of the same shape.

    Raises:
        UserError: no such run, several, or one that has not finished.
    """
    from gahb.storage.base import record_uri
    from gahb.tracking.record import Record

    book = Record(record_uri(record))
    return read(book.artifacts(book.finished_model(run).run_id), device)[0]


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
        return Trial.of(card["trial"]).architecture
    options = dict(card["architecture"])
    return ARCHITECTURES[options.pop("architecture")](**options)
