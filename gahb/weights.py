"""Trained weights on their way out and back in: a safetensors file with a JSON card beside it.

The card says what the weights are: format version, the trial's flat configuration, its signature, the hashes of data
set and training subset, images seen, final metrics and code version.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

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


def save_course(folder: Path, course: dict[int, dict[str, Tensor]]) -> None:
    """Write the weights at every evaluation, images seen → weights, into a folder beside the last ones."""
    (folder / COURSE).mkdir()
    for images_seen, tensors in course.items():
        save_file(tensors, folder / COURSE / f"images-{images_seen:012d}.safetensors")


def read(folder: Path, device: torch.device | str = "cpu") -> tuple[Denoiser, dict[str, Any]]:
    """The denoiser in evaluation mode and its card, from a folder that `save` wrote."""
    card = json.loads((folder / CARD).read_text())
    net = _architecture(card).build()
    net.load_state_dict(load_file(folder / WEIGHTS))
    return Denoiser(net).to(device).eval(), card


def read_course(folder: Path, device: torch.device | str = "cpu") -> Iterator[tuple[int, Denoiser]]:
    """Images seen and the denoiser at that moment, for every evaluation of a training, in order."""
    card = json.loads((folder / CARD).read_text())
    net = Trial.of(card["trial"]).architecture.build()
    denoiser = Denoiser(net).to(device).eval()
    for file in sorted((folder / COURSE).glob("*.safetensors")):
        net.load_state_dict(load_file(file))
        yield int(file.stem.removeprefix("images-")), denoiser


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
    from gahb.record import Record
    from gahb.storage import record_uri

    book = Record(record_uri(record))
    return read(book.artifacts(book.finished_model(run).run_id), device)[0]


def _architecture(card: dict[str, Any]) -> Architecture:
    if "trial" in card:
        return Trial.of(card["trial"]).architecture
    options = dict(card["architecture"])
    return ARCHITECTURES[options.pop("architecture")](**options)
