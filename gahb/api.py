"""What `gahb` offers to Python beside the commands: a trained denoiser out of the record."""

import torch

from gahb.models.layers import Denoiser
from gahb.storage.base import record_uri, storage_here
from gahb.tracking import lookup
from gahb.tracking.record import Record
from gahb.training import weights


def load(
    run: str, *, device: torch.device | str = "cpu", record: str | None = None, storage: str | None = None
) -> Denoiser:
    """The denoiser y ↦ f(y) of a finished trial or an imported model, in evaluation mode.

    Args:
        run: an MLflow run id, a unique prefix of one or of a signature, or a run's name.
        device: where the weights go.
        record: the record's URI; `MLFLOW_TRACKING_URI` or ./mlflow.db if left out.
        storage: where its artifacts are; `GAHB_STORAGE` or ./gahb-storage if left out.

    Returns:
        a module that maps noisy images (B, C, H, W), float32, in units of the intensity range [0, 1], to denoised
        images of the same shape.

    Raises:
        UserError: no such run, several, one that has not finished, or one whose artifacts are not in the storage.
    """
    place = Record(record_uri(record), storage_here(storage).url)
    return weights.read(place.artifacts(lookup.finished_model(place, run).run_id), device)[0]
