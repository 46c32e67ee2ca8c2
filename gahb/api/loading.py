"""Out of the record and the storage: a trained denoiser, and the images of a trial."""

from typing import TYPE_CHECKING, Literal

from gahb.api import notebook
from gahb.api.place import Place
from gahb.api.runs import TrialRun
from gahb.cli import say
from gahb.errors import UserError
from gahb.trial import Trial

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gahb.models.layers import Denoiser


def load(
    run: str | TrialRun, *, device: "torch.device | str" = "cpu", record: str | None = None, storage: str | None = None
) -> "Denoiser":
    """The denoiser y ↦ f(y) of a finished trial, at its end or at an evaluation, or of an imported model, in evaluation
    mode.

    Args:
        run: an MLflow run id, a unique prefix of one or of a signature, a run's name, or what `load_run` gives; or the
            id m-… of a LoggedModel, which is a trial at an evaluation.
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
    from gahb.tracking import logged_models, lookup
    from gahb.training import weights

    book, name = (
        (run.place.record, run.run_id) if isinstance(run, TrialRun) else (Place.at(record, storage).record, run)
    )
    if logged_models.MODEL_ID.fullmatch(name):
        trial, images_seen = logged_models.checkpoint(book, name)
        return weights.read_after(book.artifacts(trial.run_id), images_seen, device)
    return weights.read(book.artifacts(lookup.finished_model(book, name).run_id), device)[0]


def load_images(
    of: str | TrialRun | Trial,
    part: Literal["train", "held-out"] = "train",
    *,
    record: str | None = None,
    storage: str | None = None,
) -> "Tensor":
    """The images that a trial is trained on, or those that are held out from it.

    Args:
        of: what names a run, what `load_run` gives, or a trial, whose images are prepared if they are not yet.
        part: "train", the N of its subset, or "held-out", common to A and B.
        record: the record's URI; `MLFLOW_TRACKING_URI` or ./mlflow.db if left out.
        storage: where the images are; `GAHB_STORAGE` or ./gahb-storage if left out.

    Returns:
        (n, C, H, W) float32 in [0, 1].

    Raises:
        UserError: no such run, images that are not there, or fewer than the trial needs.

    Example:
        >>> gahb.load_images("16x16-N64-A").shape, gahb.load_images("16x16-N64-A", "held-out").shape
        (torch.Size([64, 1, 16, 16]), torch.Size([32, 1, 16, 16]))
        >>> gahb.load_images(gahb.Trial.of(dataset="disks", resolution=20, n_train=100)).shape
        torch.Size([100, 1, 20, 20])
    """
    from gahb.data.dataset import Prepared, prepare
    from gahb.data.intensity import unit
    from gahb.tracking import lookup
    from gahb.tracking.run import Tag

    if part not in ("train", "held-out"):
        raise UserError(f"part={part!r}: must be 'train' or 'held-out'")
    place = of.place if isinstance(of, TrialRun) else Place.at(record, storage)
    run = of.run if isinstance(of, TrialRun) else lookup.find(place.record, of) if isinstance(of, str) else None
    trial = run.trial if run else of
    assert isinstance(trial, Trial)
    if run:
        prepared = Prepared.open(place.storage, run.tags[Tag.DATA_HASH])
    else:
        with notebook.talk():
            prepared = prepare(trial.dataset, place.storage, trial.split.needed, say)
    stored = trial.split.training_images(prepared) if part == "train" else trial.split.held_out_images(prepared)
    return unit(stored)
