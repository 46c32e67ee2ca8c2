"""The record, where it is written to."""

import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gahb.storage.retry import backoff
from gahb.text import without_passwords
from gahb.tracking.client import is_retryable, no_http_retries
from gahb.tracking.provenance import provenance
from gahb.tracking.record import Record
from gahb.tracking.run import PREFIX, Tag

if TYPE_CHECKING:
    from mlflow.entities import Metric
    from PIL.Image import Image

IMAGE = re.compile(r"(?P<key>.+?)[+%]step[+%](?P<step>\d+)[+%]timestamp")
"""What the name of an image's file begins with, by MLflow's choice, in later versions and in earlier ones."""

CREATION_TRIES = 6
"""How often a run's creation is requested before the record counts as out of order."""


class RecordWriter(Record):
    """A record that runs are written to; arguments and errors are those of `Record`."""

    def create(
        self,
        experiment: str,
        name: str,
        *,
        params: Mapping[str, Any],
        tags: Mapping[str, Any],
        dataset: tuple[str, str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> str:
        """A new run, scheduled; returns its id.

        Args:
            experiment: its name.
            name: of the run.
            params: of the run.
            tags: by which the run is known again if the answer to its creation is lost.
            dataset: name, digest and source of the data set, for MLflow's data set column.
            metrics: what is known of it beforehand.

        Raises:
            UserError: there is an experiment of that name whose artifacts go elsewhere; see `check_experiment`.
        """
        names = {**provenance(), **{key: str(value) for key, value in tags.items()}}
        run_id = self._create_once(self._experiment(experiment), name, names)
        self.describe(run_id, params, dataset, metrics)
        self.schedule(run_id)
        return run_id

    def describe(
        self,
        run_id: str,
        params: Mapping[str, Any],
        dataset: tuple[str, str, str] | None,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Give a run what `create` gives it, in case that did not come to its end."""
        from mlflow.entities import Dataset, DatasetInput, Param

        texts = [Param(key, str(value)) for key, value in params.items()]
        self.client.log_batch(run_id, params=texts, metrics=_metrics(metrics or {}))
        if dataset:
            entity = Dataset(name=dataset[0], digest=dataset[1], source_type="local", source=dataset[2])
            self.client.log_inputs(run_id, datasets=[DatasetInput(entity)])

    def tag(
        self, run_id: str, tags: Mapping[str, Any], metrics: Mapping[str, float] | None = None, step: int = 0
    ) -> None:
        """Set tags of a run, and log metrics at a step."""
        from mlflow.entities import RunTag

        texts = [RunTag(key, str(value)) for key, value in tags.items()]
        self.client.log_batch(run_id, metrics=_metrics(metrics or {}, step), tags=texts)

    def log_metrics(self, run_id: str, metrics: Mapping[str, float]) -> None:
        """Metrics of an analysis."""
        self.client.log_batch(run_id, metrics=_metrics(metrics))

    def add_artifacts(self, run_id: str, folder: Path) -> None:
        """Copy every file in a folder to the run's artifacts."""
        self._check_artifacts(run_id)
        self.client.log_artifacts(run_id, str(folder))

    def add_images(self, run_id: str, images: "Iterable[tuple[str, int, Image]]") -> None:
        """Log images, each with its name and step, but those that are there already; see `images_of`."""
        self._check_artifacts(run_id)
        there = self.images_of(run_id)
        for key, step, image in images:
            if (key, step) not in there:
                self.client.log_image(run_id, image, key=key, step=step)

    def images_of(self, run_id: str) -> set[tuple[str, int]]:
        """The names and steps of a run's images."""
        paths = [Path(file.path).name for file in self.client.list_artifacts(run_id, "images")]
        found = filter(None, map(IMAGE.match, paths))
        return {(match["key"], int(match["step"])) for match in found}

    def add_text(self, run_id: str, text: str, file: str) -> None:
        """Add a text to the run's artifacts, under the name of a file."""
        self._check_artifacts(run_id)
        self.client.log_text(run_id, text, file)

    def schedule(self, run_id: str) -> None:
        """Mark a run as scheduled: a new one, or one that was interrupted or failed."""
        self.client.update_run(run_id, status="SCHEDULED")

    def start(self, run_id: str) -> None:
        """Mark a run as running."""
        self.client.update_run(run_id, status="RUNNING")

    def finish(self, run_id: str) -> None:
        """Mark a run as finished. Its artifacts must be there already."""
        self.client.set_terminated(run_id, "FINISHED")

    def fail(self, run_id: str, reason: str) -> None:
        """Mark a run as failed, and say why."""
        self.tag(run_id, {Tag.REASON: without_passwords(reason)[:500]})
        self.client.set_terminated(run_id, "FAILED")

    def interrupt(self, run_id: str, reason: str = "") -> None:
        """Mark a run as interrupted, and say why."""
        self.tag(run_id, {Tag.REASON: reason})
        self.client.set_terminated(run_id, "KILLED")

    def _create_once(self, experiment_id: str, name: str, tags: Mapping[str, str]) -> str:
        """Create one run, although an answer may be lost: the request is not simply repeated, but the run is looked
        for, by its start and its tags, and adopted if it is there.

        Raises:
            Exception: MLflow refuses, or the record answers again and still creates nothing.
        """
        start, pauses = _milliseconds(), backoff()
        for tries_left in reversed(range(CREATION_TRIES)):
            try:
                with no_http_retries():
                    return str(self.client.create_run(experiment_id, start, dict(tags), name).info.run_id)
            except Exception as error:
                if not is_retryable(error):
                    raise
                self.client.search_experiments(max_results=1)  # ends when the record answers again;
                time.sleep(next(pauses))  # a request that waited in a hanging server is carried out by now
                if run_id := self._find_created(experiment_id, start, tags):
                    return run_id
                if not tries_left:
                    raise
        raise AssertionError("unreachable")

    def _find_created(self, experiment_id: str, start: int, tags: Mapping[str, str]) -> str | None:
        """The id of the run that was created with this start, in milliseconds since 1970, and these tags."""
        ours = {key: value for key, value in tags.items() if key.startswith(PREFIX)}
        for run in self.client.search_runs([experiment_id], f"attributes.start_time = {start}"):
            if ours.items() <= run.data.tags.items():
                return str(run.info.run_id)
        return None

    def _experiment(self, name: str) -> str:
        """The id of the experiment of that name, made if there is none. A server decides for itself where artifacts go;
        for another record it is the storage."""
        found = self.client.get_experiment_by_name(name)
        if found is None:
            from mlflow.exceptions import MlflowException

            location = None if self.uri.startswith("http") else f"{self.storage_url}/artifacts/{name}"
            try:
                return str(self.client.create_experiment(name, artifact_location=location))
            except MlflowException:  # another process made it in between
                found = self.client.get_experiment_by_name(name)
                if found is None:
                    raise
        self._check_location(f"the experiment {name!r}", found.artifact_location)
        return str(found.experiment_id)


def _metrics(values: Mapping[str, float], step: int = 0) -> "list[Metric]":
    """Metrics as MLflow takes them."""
    from mlflow.entities import Metric

    now = _milliseconds()
    return [Metric(key, float(value), now, step) for key, value in values.items()]


def _milliseconds() -> int:
    """Now, since 1970."""
    return time.time_ns() // 1_000_000
