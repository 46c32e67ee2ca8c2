"""The record: MLflow, and the only module that knows it.

A trial is one run, flat in its sweep's experiment: params are the flat trial, metrics have images seen as their step,
tags say what the run is:

    gahb.kind             trial, import (a model from elsewhere), or the name of the analysis
    gahb.signature        what names the trial
    gahb.sweep.<NAME>     "true" for every sweep that the trial belongs to
    gahb.data_hash        the data set;    gahb.subset_hash  the training images;    gahb.subset  A or B
    gahb.launch           the launch that has the trial in hand
    gahb.attempt          the worker that may write, host/pid/nonce; one that finds another's mark stops
    gahb.starts           step:count, how often workers have started from the checkpoint at that step
    gahb.stop             "true" when the trial shall stop
    gahb.reason           why it failed or stopped, or what went wrong last
    gahb.planned_seconds  device time that was planned for it
    gahb.hardware           what trained it;    gahb.share  how many cores, or how much of a GPU

An analysis is a run in the experiment `<sweep>-analysis`, tagged with the runs it was computed from.
"""

import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from gahb.errors import UserError
from gahb.storage import retry as retries
from gahb.storage.retry import with_retries
from gahb.tracking.preflight import check_database, check_record

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # it writes into the home directory
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # a user waits seconds, and `Patient` as long as it takes
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # where the commands print data

if TYPE_CHECKING:  # it takes two seconds to import, and a plan without a record can do without it
    from mlflow import MlflowClient

logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)

STATES = {
    "SCHEDULED": "scheduled",
    "RUNNING": "running",
    "FINISHED": "finished",
    "FAILED": "failed",
    "KILLED": "interrupted",
}
"""MLflow's run status → the trial's state."""

PAGE = 1000


@dataclass(frozen=True)
class Run:
    """A run as the record has it."""

    run_id: str
    experiment_id: str
    name: str
    state: str
    tags: dict[str, str]
    params: dict[str, str]
    metrics: dict[str, float]

    @property
    def signature(self) -> str:
        return self.tags.get("gahb.signature", "")

    @property
    def trial(self) -> dict[str, Any]:
        """The flat trial."""
        flat: dict[str, Any] = json.loads(self.tags["gahb.trial"])
        return flat

    @property
    def imported(self) -> bool:
        """Whether the model was trained elsewhere."""
        return self.tags.get("gahb.kind") == "import"

    @property
    def unfinished(self) -> bool:
        """Whether the run has been claimed and has not come to an end."""
        return self.state in ("scheduled", "running")

    @property
    def sweeps(self) -> list[str]:
        prefix = "gahb.sweep."
        return sorted(tag.removeprefix(prefix) for tag in self.tags if tag.startswith(prefix))


class Record:
    """The record at an MLflow tracking URI.

    Args:
        uri: the tracking URI.
        patient: wait, as long as it takes, for a server that does not answer.

    Raises:
        UserError: on first use, if the record cannot be reached.
    """

    def __init__(self, uri: str, *, retry: bool = False) -> None:
        self.uri, self.retry = uri, retry

    @property
    def exists(self) -> bool:
        """False for an SQLite file that nothing has been written to yet; UserError if there cannot be one."""
        if not self.uri.startswith("sqlite:///") or Path(self.uri.removeprefix("sqlite:///")).exists():
            return True
        check_record(self.uri)
        return False

    @cached_property
    def client(self) -> "MlflowClient":
        """MLflow's client. A fresh SQLite file gets its tables here, one process at a time: two at once break it."""
        if not self.retry:
            check_record(self.uri)
        from mlflow import MlflowClient

        def connect() -> "MlflowClient":
            with _sqlite_lock(self.uri):
                check_database(self.uri)
                client = MlflowClient(self.uri)
                client.search_experiments(max_results=1)
                return client

        try:
            if self.retry:
                return _Retrying(with_retries(connect, is_retryable))  # type: ignore[return-value]
            return connect()
        except UserError:
            raise
        except Exception as error:  # MLflow's own, or whatever its database or network library raises
            raise UserError(f"the record {self.uri} cannot be used: {_first_line(error)}") from None

    def trials(self, sweep: str | None = None) -> list[Run]:
        """Every trial, or every trial of a sweep; oldest first."""
        return [run for run in self._search("tags.`gahb.kind` = 'trial'") if sweep is None or sweep in run.sweeps]

    def analyses(self, sweep: str) -> list[Run]:
        """The finished analyses of a sweep; oldest first."""
        found = self._search("tags.`gahb.kind` != 'trial'")
        return [run for run in found if sweep in run.sweeps and run.state == "finished"]

    def models(self) -> list[Run]:
        """Every trial and every imported model."""
        return self.trials() + self._search("tags.`gahb.kind` = 'import'")

    def trained(self) -> list[Run]:
        """Every trial and every calibration: what is known of devices' speed."""
        return self.trials() + self._search("tags.`gahb.kind` = 'calibration'")

    def by_signature(self) -> dict[str, Run]:
        """Signature → its trial. Of several runs, a finished one wins, or else the oldest."""
        return {run.signature: run for run in sorted(reversed(self.trials()), key=lambda run: run.state == "finished")}

    def sweeps(self) -> list[str]:
        """The names of all sweeps in the record."""
        return sorted({sweep for run in self.trials() for sweep in run.sweeps})

    def find(self, text: str) -> Run:
        """The trial or imported model that a user means: by run id, unique prefix of one or of a signature, or name.

        Raises:
            UserError: none, or several.
        """
        runs = self.models()
        for matches in (
            [run for run in runs if text in (run.run_id, run.signature)],
            [run for run in runs if run.name == text],
            [run for run in runs if text and (run.run_id.startswith(text) or run.signature.startswith(text))],
        ):
            if len(matches) == 1:
                return matches[0]
            if matches:
                ids = ", ".join(f"{run.run_id[:8]} ({'/'.join(run.sweeps)} {run.name})" for run in matches[:4])
                more = ", …" if len(matches) > 4 else ""
                raise UserError(f"{text!r} means {len(matches)} trials: {ids}{more}; give more of a run id")
        raise UserError(f"no trial {text!r} in the record {self.uri}; list them with: gahb-sweep status")

    def finished_model(self, text: str) -> Run:
        """The trial or imported model that a user means, which must be finished.

        Raises:
            UserError: none, several, or one that has no weights yet.
        """
        run = self.find(text)
        if run.state != "finished":
            raise UserError(f"trial {run.name} ({run.run_id[:8]}) is {run.state}, not finished; launch its sweep again")
        return run

    def finished_trial(self, text: str) -> Run:
        """The trial that a user means, which must be finished and have images that are known.

        Raises:
            UserError: none, several, one that has no weights yet, or an imported model.
        """
        run = self.finished_model(text)
        if run.imported:
            raise UserError(f"{run.name} was imported: nothing is known of the images it was trained on")
        return run

    def sweep_or_trial(self, text: str) -> list[Run]:
        """The trials of a sweep, or the one trial that a user means.

        Raises:
            UserError: neither, or several.
        """
        runs = self.trials(text) or [self.find(text)]
        if runs[0].imported:
            raise UserError(f"{runs[0].name} was imported: there is nothing to train")
        return runs

    def sweep_trials(self, sweep: str) -> list[Run]:
        """The trials of a sweep.

        Raises:
            UserError: no such sweep.
        """
        runs = self.trials(sweep)
        if not runs:
            known = ", ".join(self.sweeps()) or "none"
            raise UserError(f"no sweep {sweep!r} in the record {self.uri} (it has: {known})")
        return runs

    def finished_trials(self, sweep: str) -> list[Run]:
        """The finished trials of a sweep.

        Raises:
            UserError: no such sweep, or none finished.
        """
        finished = [run for run in self.sweep_trials(sweep) if run.state == "finished"]
        if not finished:
            raise UserError(f"no trial of sweep {sweep!r} has finished yet; see: gahb-sweep status")
        return finished

    def artifacts(self, run_id: str, file: str = "") -> Path:
        """A local folder with the run's artifacts, or one file of them; downloaded if they are remote.

        Raises:
            UserError: they are not there.
        """
        self._check_artifacts(run_id)
        try:
            return Path(self.client.download_artifacts(run_id, file))
        except Exception as error:  # of MLflow or whatever keeps the files
            raise UserError(f"the artifacts of run {run_id[:8]} cannot be read: {_first_line(error)}") from None

    def history(self, run_id: str, key: str) -> list[tuple[int, float]]:
        """A metric's (images seen, value) pairs in the order of logging."""
        return [(metric.step, metric.value) for metric in self.client.get_metric_history(run_id, key)]

    def create(
        self,
        experiment: str,
        name: str,
        artifacts: str,
        *,
        params: Mapping[str, Any],
        tags: Mapping[str, Any],
        dataset: tuple[str, str, str] | None = None,
    ) -> str:
        """A new run, scheduled; returns its id.

        Args:
            artifacts: URL of the folder where an SQLite record keeps artifacts; a server decides for itself.
            dataset: name, digest and source of the data set, for MLflow's data set column.
        """
        experiment_id = self._experiment(experiment, artifacts)
        run = self.client.create_run(experiment_id, run_name=name, tags={k: str(v) for k, v in tags.items()})
        run_id: str = run.info.run_id
        self.describe(run_id, params, dataset)
        self.client.update_run(run_id, status="SCHEDULED")
        return run_id

    def describe(self, run_id: str, params: Mapping[str, Any], dataset: tuple[str, str, str] | None) -> None:
        """Give a run what `create` gives it, in case that did not come to its end."""
        from mlflow.entities import Dataset, DatasetInput, Param

        self.client.log_batch(run_id, params=[Param(key, str(value)) for key, value in params.items()])
        if dataset:
            entity = Dataset(name=dataset[0], digest=dataset[1], source_type="local", source=dataset[2])
            self.client.log_inputs(run_id, datasets=[DatasetInput(entity)])

    def tag(self, run_id: str, tags: Mapping[str, Any]) -> None:
        """Set tags of a run."""
        from mlflow.entities import RunTag

        self.client.log_batch(run_id, tags=[RunTag(key, str(value)) for key, value in tags.items()])

    def tags(self, run_id: str) -> dict[str, str]:
        """A run's tags."""
        return dict(self.client.get_run(run_id).data.tags)

    def logged(self, run_id: str) -> set[tuple[str, int]]:
        """The (metric, images seen) pairs that the record has of a run."""
        keys = self.client.get_run(run_id).data.metrics
        return {(key, step) for key in keys for step, _ in self.history(run_id, key)}

    def start(self, run_id: str) -> None:
        """Mark a run as running."""
        self.client.update_run(run_id, status="RUNNING")

    def reopen(self, run_id: str) -> None:
        """Mark an interrupted or failed run as scheduled again."""
        self.client.update_run(run_id, status="SCHEDULED")

    def log_metrics(self, run_id: str, metrics: Mapping[str, float]) -> None:
        """Metrics of an analysis."""
        from mlflow.entities import Metric

        now = time.time_ns() // 1_000_000
        self.client.log_batch(run_id, metrics=[Metric(key, float(value), now, 0) for key, value in metrics.items()])

    def add_artifacts(self, run_id: str, folder: Path) -> None:
        """Copy every file in a folder to the run's artifacts."""
        self._check_artifacts(run_id)
        self.client.log_artifacts(run_id, str(folder))

    def add_text(self, run_id: str, text: str, file: str) -> None:
        """Keep a text as an artifact."""
        self.client.log_text(run_id, text, file)

    def finish(self, run_id: str) -> None:
        """Mark a run as finished. Its artifacts must be there already."""
        self.client.set_terminated(run_id, "FINISHED")

    def fail(self, run_id: str, reason: str) -> None:
        """Mark a run as failed, and say why."""
        self.tag(run_id, {"gahb.reason": reason[:500]})
        self.client.set_terminated(run_id, "FAILED")

    def discard(self, run_id: str) -> None:
        """Delete a run; MLflow can restore it."""
        self.client.delete_run(run_id)

    def interrupt(self, run_id: str, reason: str = "") -> None:
        """Mark a run as interrupted, and say why."""
        self.tag(run_id, {"gahb.reason": reason})
        self.client.set_terminated(run_id, "KILLED")

    def url(self, experiment: str) -> str:
        """The part of the MLflow UI's address that shows an experiment's runs."""
        found = self.client.get_experiment_by_name(experiment)
        return f"#/experiments/{found.experiment_id}/runs?workflowType=machine_learning" if found else "#/experiments"

    def _check_artifacts(self, run_id: str) -> None:
        """Raise UserError unless the run's artifacts are in a folder that MLflow named by it. A record from elsewhere
        could name any."""
        uri = self.client.get_run(run_id).info.artifact_uri
        if not uri.endswith(f"/{run_id}/artifacts") or ".." in unquote(uri).split("/"):
            raise UserError(f"the artifacts of run {run_id[:8]} are said to be in {uri}, which is no place for them")

    def _search(self, condition: str) -> list[Run]:
        if not self.exists:
            return []
        try:
            return self._found(condition)
        except UserError:
            raise
        except Exception as error:  # as in `_client`
            raise UserError(f"the record {self.uri} cannot be read: {_first_line(error)}") from None

    def _found(self, condition: str) -> list[Run]:
        experiments = [e.experiment_id for e in self.client.search_experiments()]
        runs: list[Run] = []
        token = None
        while experiments:
            page = self.client.search_runs(
                experiments, condition, max_results=PAGE, order_by=["attributes.start_time ASC"], page_token=token
            )
            runs += map(_run, page)
            token = page.token
            if not token:
                break
        return runs

    def _experiment(self, name: str, artifacts: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found:
            return str(found.experiment_id)
        from mlflow.exceptions import MlflowException

        location = f"{artifacts}/{name}" if self.uri.startswith("sqlite:") else None
        try:
            return str(self.client.create_experiment(name, artifact_location=location))
        except MlflowException:  # another process made it in between
            found = self.client.get_experiment_by_name(name)
            if found is None:
                raise
            return str(found.experiment_id)


class _Retrying:
    """A client whose every call waits for a server that does not answer. The calls that a worker and the end of a
    launch make may be made twice."""

    def __init__(self, client: "MlflowClient") -> None:
        self.client = client

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.client, name)
        return lambda *args, **options: with_retries(lambda: method(*args, **options), is_retryable)


def is_retryable(error: Exception) -> bool:
    """Whether what MLflow raised is for want of a server, a database or a disk, and not for what was asked."""
    from mlflow.exceptions import MlflowException
    from requests import HTTPError

    if isinstance(error, MlflowException):
        return _at_fault(error.get_http_status_code())
    if isinstance(error, HTTPError) and error.response is not None:
        return _at_fault(error.response.status_code)
    return retries.is_retryable(error)


def _at_fault(status: int) -> bool:
    return status >= 500 or status == 429


def _run(run: Any) -> Run:
    return Run(
        run_id=run.info.run_id,
        experiment_id=run.info.experiment_id,
        name=run.info.run_name,
        state=STATES[run.info.status],
        tags=dict(run.data.tags),
        params=dict(run.data.params),
        metrics=dict(run.data.metrics),
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


@contextmanager
def _sqlite_lock(uri: str) -> Iterator[None]:
    """Hold the lock beside an SQLite file; nothing for other records."""
    if not uri.startswith("sqlite:///"):
        yield
        return
    file = Path(uri.removeprefix("sqlite:///"))
    with file.with_name(f"{file.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
