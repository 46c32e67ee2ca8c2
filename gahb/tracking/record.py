"""The record: MLflow, which this room alone knows. Here it is read."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from gahb.errors import UserError
from gahb.tracking.client import connect, first_line
from gahb.tracking.preflight import check_record
from gahb.tracking.run import STATES, Kind, Run, Tag

if TYPE_CHECKING:
    from mlflow import MlflowClient

PAGE = 1000


class Record:
    """The record at an MLflow tracking URI.

    Args:
        uri: the tracking URI.
        retry: wait, as long as it takes, for a server that does not answer.

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
        """MLflow's client."""
        return connect(self.uri, retry=self.retry)

    def runs(self, *kinds: str, sweep: str | None = None) -> list[Run]:
        """The runs of some kinds, or of every kind: kind after kind, the oldest first.

        Args:
            kinds: `Kind`s, or names of analyses.
            sweep: only those that belong to it.

        Raises:
            UserError: the record cannot be read.
        """
        conditions = [f"tags.`{Tag.KIND}` = '{kind}'" for kind in kinds] or [f"tags.`{Tag.KIND}` != ''"]
        found = [run for condition in conditions for run in self._search(condition)]
        return [run for run in found if sweep is None or sweep in run.sweeps]

    def by_signature(self) -> dict[str, Run]:
        """Signature → its trial. Of several runs, a finished one wins, or else the oldest."""
        trials = reversed(self.runs(Kind.TRIAL))
        return {run.signature: run for run in sorted(trials, key=lambda run: run.state == "finished")}

    def artifacts(self, run_id: str, file: str = "") -> Path:
        """A local folder with the run's artifacts, or one file of them; downloaded if they are remote.

        Raises:
            UserError: they are not there.
        """
        self._check_artifacts(run_id)
        try:
            return Path(self.client.download_artifacts(run_id, file))
        except Exception as error:  # of MLflow or whatever keeps the files
            raise UserError(f"the artifacts of run {run_id[:8]} cannot be read: {first_line(error)}") from None

    def tags(self, run_id: str) -> dict[str, str]:
        """A run's tags."""
        return dict(self.client.get_run(run_id).data.tags)

    def history(self, run_id: str, key: str) -> list[tuple[int, float]]:
        """A metric's (images seen, value) pairs in the order of logging."""
        return [(metric.step, metric.value) for metric in self.client.get_metric_history(run_id, key)]

    def logged(self, run_id: str) -> set[tuple[str, int]]:
        """The (metric, images seen) pairs that the record has of a run."""
        keys = self.client.get_run(run_id).data.metrics
        return {(key, step) for key in keys for step, _ in self.history(run_id, key)}

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
        except Exception as error:  # as in `connect`
            raise UserError(f"the record {self.uri} cannot be read: {first_line(error)}") from None

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
