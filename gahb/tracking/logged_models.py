"""Checkpoints as LoggedModels of MLflow: one for each evaluation of a trial, so that they can be ranked and searched.

A LoggedModel holds no weights. It leads to its run, among whose artifacts they are, and its tag `gahb.images_seen` says
which; its metrics are the evaluation's, on the data set of the run.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gahb.errors import UserError
from gahb.tracking import lookup, parsing
from gahb.tracking.client import no_http_retries
from gahb.tracking.metric_logger import BATCH
from gahb.tracking.record import Record
from gahb.tracking.run import METRICS, Run

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel

IMAGES_SEEN = "gahb.images_seen"
"""The tag of a model, which is its number of images seen."""

MODEL_ID = re.compile("m-[0-9a-f]{32}")

TYPE = "denoiser"
"""MLflow's type of these models."""

PARAMS = ("dataset", "resolution", "architecture", "n_train", "subset", "seed")
"""The keys of a trial that its models have as params."""


def log_models(
    record: Record,
    run_id: str,
    flat: Mapping[str, Any],
    dataset: tuple[str, str],
    evaluations: Sequence[tuple[Mapping[str, float], float]],
) -> None:
    """Make a LoggedModel of each evaluation that has none. May be called again, after an error too: what is there
    stays as it is, and what is missing is added.

    Args:
        record: where the run is.
        run_id: of the trial.
        flat: the trial.
        dataset: name and digest, as the run's input has them.
        evaluations: metrics, with `images_seen`, and the time, in seconds since 1970, with which the run has them.
    """
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric

    client = record.client
    run = client.get_run(run_id)
    models = {int(model.tags[IMAGES_SEEN]): model for model in _models_of(record, run.info.experiment_id, run_id)}
    metrics, outputs = list[Metric](), list[LoggedModelOutput]()
    linked = {output.model_id for output in (run.outputs.model_outputs if run.outputs else ())}
    for row, time in evaluations:
        images_seen = int(row["images_seen"])
        if images_seen not in models:
            models[images_seen] = _create(record, run, flat, images_seen)
        model_id = models[images_seen].model_id
        more: dict[str, Any] = {"model_id": model_id, "dataset_name": dataset[0], "dataset_digest": dataset[1]}
        metrics += [Metric(key, row[key], round(1000 * time), images_seen, **more) for key in METRICS]
        if model_id not in linked:
            outputs.append(LoggedModelOutput(model_id, images_seen))
    for start in range(0, len(metrics), BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + BATCH])
    if outputs:
        client.log_outputs(run_id, outputs)
    for model in models.values():
        if model.status != LoggedModelStatus.READY:
            client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def checkpoint(record: Record, model_id: str) -> tuple[Run, int]:
    """The finished trial that a LoggedModel is of, and the images that it had seen.

    Raises:
        UserError: no such model, or none of a finished trial.
    """
    from mlflow.exceptions import MlflowException

    try:
        model = record.client.get_logged_model(model_id)
    except MlflowException:
        raise UserError(f"no model {model_id} in the record {record.uri}") from None
    images_seen, run_id = model.tags.get(IMAGES_SEEN, ""), str(model.source_run_id)
    if not re.fullmatch("[0-9]{1,13}", images_seen) or not re.fullmatch(parsing.RUN_ID, run_id):
        raise UserError(f"the model {model_id} is none of gahb's")
    return lookup.finished_trial(record, run_id), int(images_seen)


def _models_of(record: Record, experiment_id: str, run_id: str) -> "Iterator[LoggedModel]":
    token = None
    while True:
        page = record.client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'", page_token=token)
        yield from (model for model in page if IMAGES_SEEN in model.tags)
        token = page.token
        if not token:
            return


def _create(record: Record, run: Any, flat: Mapping[str, Any], images_seen: int) -> "LoggedModel":
    name = re.sub("[/:.%\"']", "-", f"{run.info.run_name} after {images_seen}")
    with no_http_retries():  # which could make two
        return record.client.create_logged_model(
            run.info.experiment_id,
            name=name,
            source_run_id=run.info.run_id,
            tags={IMAGES_SEEN: str(images_seen)},
            params={**{key: str(flat[key]) for key in PARAMS}, "images_seen": str(images_seen)},
            model_type=TYPE,
        )
