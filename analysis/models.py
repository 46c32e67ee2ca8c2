"""Finished runs as models to compute with."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gahb.data.dataset import Prepared
from gahb.data.splits import subset_hash
from gahb.errors import UserError
from gahb.execution.analysis import AnalysisContext
from gahb.models.layers import Denoiser
from gahb.tracking.run import Run
from gahb.training import weights
from gahb.training.step import make_deterministic
from gahb.trial import Trial


@dataclass(frozen=True)
class Model:
    """A finished run's denoiser. `train_images` is (N, C, H, W) as stored, and N = 0 where nothing is known of them."""

    run: Run
    card: dict[str, Any]
    denoiser: Denoiser
    train_images: Tensor

    @property
    def name(self) -> str:
        return self.run.name

    @property
    def resolution(self) -> int:
        """Side of its images."""
        return self.train_images.shape[-1]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of its images."""
        channels, height, width = self.train_images.shape[1:]
        return channels, height, width


@dataclass(frozen=True)
class TrialModel(Model):
    """The model of a finished trial, whose images are known; `rows` (N,) are those of its training images."""

    trial: Trial
    rows: NDArray[np.int64]

    def held_out(self, context: AnalysisContext) -> Tensor:
        """The held-out images, (n_test, C, H, W) as stored."""
        return self.trial.split.held_out_images(Prepared.open(context.storage, self.card["data_hash"]))


def load(context: AnalysisContext, run: Run) -> Model:
    """The model of a finished run, whichever it is.

    Raises:
        UserError: a trial's images are not in the storage, or are no longer those it was trained on.
    """
    make_deterministic()
    denoiser, card = weights.read(context.record.artifacts(run.run_id), context.device)
    if run.imported != ("trial" not in card):
        raise UserError(f"the artifacts of {run.name} are those of another kind of model")
    if run.imported:
        side, channels = card["resolution"], card["architecture"].get("image_channels", 1)
        return Model(run, card, denoiser, torch.empty(0, channels, side, side, dtype=torch.uint8))
    trial = Trial.of(card["trial"], card.get("plugins", ()))
    prepared = Prepared.open(context.storage, card["data_hash"])
    images = trial.split.training_images(prepared)
    if subset_hash(images) != card["subset_hash"]:
        raise UserError(
            f"the images of {run.name} in {context.storage.uri} are not those it was trained on (their hash differs)"
        )
    return TrialModel(run, card, denoiser, images, trial, trial.split.rows(prepared.groups))


def load_trial(context: AnalysisContext, run: Run) -> TrialModel:
    """The model of a finished trial; errors as for `load`."""
    model = load(context, run)
    assert isinstance(model, TrialModel), "an imported model"
    return model
