"""Out of the record and the storage: a trained denoiser."""

from typing import TYPE_CHECKING

from gahb.api.place import Place

if TYPE_CHECKING:
    import torch

    from gahb.models.layers import Denoiser


def load(
    run: str, *, device: "torch.device | str" = "cpu", record: str | None = None, storage: str | None = None
) -> "Denoiser":
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

    Example:
        >>> denoise = gahb.load("16x16-N64-A")
        >>> denoise(torch.rand(3, 1, 16, 16)).shape
        torch.Size([3, 1, 16, 16])
    """
    from gahb.tracking import lookup
    from gahb.training import weights

    book = Place.at(record, storage).record
    return weights.read(book.artifacts(lookup.finished_model(book, run).run_id), device)[0]
