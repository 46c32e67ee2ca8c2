"""The record: MLflow, which this room alone knows. Here it is read.

To read a run takes a millisecond, so MLflow is asked as narrowly as its filters allow. Of those, the key of a tag, such
as the sweep's, and the id of a run are found by an index; for the value of a tag MLflow looks through all runs, which
takes microseconds each.
"""

import atexit
import gc
import logging
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gahb.errors import UserError
from gahb.own_folder import own_folder
from gahb.text import printable, without_passwords
from gahb.tracking import locations, parsing
from gahb.tracking.client import connect, first_line
from gahb.tracking.preflight import check_record
from gahb.tracking.run import BY_N, STATES, SWEEP, SWEEP_NAME, Kind, N, Run, Tag
from gahb.tracking.views import sweep_link

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

PAGE = 1000
"""Runs in one answer."""

IDS = 100
"""Ids in one question."""

ONE_BY_ONE = 100
"""Up to so many trials are looked for one by one; of more, all trials are read."""

ANY_KIND = f"tags.`{Tag.KIND}` != ''"


NAMED = 3
"""Runs that a warning names."""

_left_out = set[str]()
"""The ids of the runs that a warning of this process has counted."""


class Record:
    """The record at an MLflow tracking URI.

    Args:
        uri: the tracking URI.
        storage_url: of the storage beside it, where artifacts may be.
        retry: wait, as long as it takes, for a server that does not answer.

    Raises:
        UserError: on first use, if the record cannot be reached.
    """

    def __init__(self, uri: str, storage_url: str, *, retry: bool = False) -> None:
        self.uri, self.storage_url, self.retry = uri, storage_url, retry

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
        if sweep is not None and not SWEEP_NAME.fullmatch(sweep):
            return []
        member = "" if sweep is None else f" AND {tagged(f'{SWEEP}{sweep}', 'true')}"
        return self.search(*(f"{kind}{member}" for kind in [tagged(Tag.KIND, kind) for kind in kinds] or [ANY_KIND]))

    def newest(self, kind: str, count: int, device: str | None = None) -> list[Run]:
        """The newest finished runs of a kind, at most so many, the oldest of them first.

        Args:
            kind: a `Kind`.
            count: how many at most.
            device: only those that were trained on it.
        """
        conditions = [tagged(Tag.KIND, kind), "attributes.status = 'FINISHED'"]
        if device is not None:
            conditions.append(tagged(Tag.DEVICE, device))
        return self.search(" AND ".join(conditions), newest=count)[::-1]

    def by_id(self, run_ids: Collection[str]) -> list[Run]:
        """The runs of these ids that there are."""
        ids = [f"'{run_id}'" for run_id in run_ids]
        parts = [ids[start : start + IDS] for start in range(0, len(ids), IDS)]
        return self.search(*(f"attributes.run_id IN ({', '.join(part)})" for part in parts))

    def by_signature(self, signatures: Collection[str]) -> dict[str, Run]:
        """Signature → its trial, for those of the signatures that there are. Of several runs, a finished one wins, or
        else the oldest."""
        trials = reversed(self._trials(Tag.SIGNATURE, signatures))
        return {run.signature: run for run in sorted(trials, key=lambda run: run.state == "finished")}

    def by_course(self, courses: Collection[str]) -> dict[str, list[Run]]:
        """Course → its trials, for those of the courses that there are."""
        found = dict[str, list[Run]]()
        for run in self._trials(Tag.COURSE, courses):
            found.setdefault(run.tags[Tag.COURSE], []).append(run)
        return found

    def _trials(self, tag: Tag, values: Collection[str]) -> list[Run]:
        """The trials with one of these values of a tag, the oldest of each first."""
        if len(values) <= ONE_BY_ONE:
            found = self.search(*(tagged(tag, value) for value in values))
        else:
            found = self.runs(Kind.TRIAL)
        wanted = set(values)
        return [run for run in found if run.kind == Kind.TRIAL and run.tags.get(tag) in wanted]

    def search(self, *conditions: str, newest: int | None = None) -> list[Run]:
        """The runs that fulfil each of the conditions, one condition after the other: the oldest first, or the newest,
        so many, and those first. Runs that gahb cannot have made so are left out, and a warning names them.

        Args:
            conditions: filters of MLflow's search.
            newest: how many at most.

        Raises:
            UserError: the record cannot be read.
        """
        return self._of_ours(run for run in self._read(conditions, newest) if run.kind)

    def deleted(self) -> list[Run]:
        """The deleted runs of every kind, which MLflow can restore until `mlflow gc`; errors as for `search`."""
        return self._of_ours(run for run in self._read([ANY_KIND], deleted=True) if run.kind)

    def unchecked(self) -> list[Run]:
        """All runs that are not deleted, also those of others, which may hold anything; errors as for `search`."""
        return self._read([""])

    def files(self, run_id: str, folder: str = "") -> list[str]:
        """The names of the run's artifacts in a folder of them; errors as for `artifacts`."""
        self._check_artifacts(run_id)
        try:
            found = self.client.list_artifacts(run_id, folder or None)
        except Exception as error:  # as in `artifacts`
            raise UserError(f"the artifacts of run {run_id[:8]} cannot be read: {first_line(error)}") from None
        return sorted(file.path.rpartition("/")[2] for file in found if not file.is_dir)

    def artifacts(self, run_id: str, file: str = "", *, keep: bool = False) -> Path:
        """A local folder with the run's artifacts, or one file of them; downloaded, if they are remote, into a folder
        that nobody else may enter.

        Args:
            run_id: of the run.
            file: its name.
            keep: leave what was downloaded when this process ends.

        Raises:
            UserError: they are not there, or said to be where no artifacts should be.
        """
        location = self._check_artifacts(run_id)
        try:
            there = None if location.startswith("file:") else str(_download_folder(keep))
            return Path(self.client.download_artifacts(run_id, file, there))
        except UserError:
            raise
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

    def url(self, sweep: str) -> str:
        """The part of the MLflow UI's address that opens a sweep's trials on the right columns."""
        return sweep_link(self.client, sweep)

    def check_location(self, run: Run) -> None:
        """Raise UserError unless the run's artifacts are in the storage, or in the keeping of the record's server, in a
        folder that is named by it."""
        self._check_location(f"run {run.run_id[:8]}", run.artifact_uri, f"/{run.run_id}/artifacts")

    def check_experiment(self, name: str) -> None:
        """Raise UserError if there is an experiment of the name whose artifacts go elsewhere."""
        if self.exists and (found := self.client.get_experiment_by_name(name)):
            self._check_location(f"the experiment {name!r}", found.artifact_location)

    def _check_artifacts(self, run_id: str) -> str:
        """Where the run's artifacts are, which is as `check_location` demands it."""
        location = str(self.client.get_run(run_id).info.artifact_uri)
        self._check_location(f"run {run_id[:8]}", location, f"/{run_id}/artifacts")
        return location

    def _check_location(self, whose: str, location: str, end: str = "") -> None:
        if not location.endswith(end) or not locations.is_ours(location, self.uri, self.storage_url):
            where = locations.expected(self.uri, self.storage_url)
            raise UserError(
                f"the artifacts of {whose} are said to be in {location}, which is no place for them: they should be in "
                f"{where}; name their storage with --storage"
            )

    def _of_ours(self, runs: Iterable[Run]) -> list[Run]:
        """Those of the runs that are as gahb makes them; a warning tells of the others, once. On a server, where a run
        may be another account's, its artifacts have to be in the right place, too."""
        ours, others = list[Run](), dict[str, str]()
        for run in runs:
            try:
                parsing.check(run)
                if self.uri.startswith("http"):
                    self.check_location(run)
                ours.append(run)
            except (ValueError, UserError) as error:
                others[run.run_id] = f"{run.run_id[:8]} ({str(run.name)[:60]}): {error}"
        if new := {run_id: why for run_id, why in others.items() if run_id not in _left_out}:
            _left_out.update(new)
            first = "; ".join(list(new.values())[:NAMED]) + ("; …" if len(new) > NAMED else "")
            what = "1 run" if len(new) == 1 else f"{len(new)} runs"
            log.warning("%s", printable(without_passwords(f"left out {what} that others made or changed: {first}")))
        return ours

    def _read(self, conditions: Sequence[str], newest: int | None = None, *, deleted: bool = False) -> list[Run]:
        """As for `search`, of the runs that are deleted or of those that are not, unchecked."""
        if not conditions or not self.exists:
            return []
        try:
            experiments = self._experiments()
            return [run for condition in conditions for run in self._found(experiments, condition, newest, deleted)]
        except UserError:
            raise
        except Exception as error:  # as in `connect`
            raise UserError(f"the record {self.uri} cannot be read: {first_line(error)}") from None

    def _experiments(self) -> list[str]:
        """The ids of all experiments, also of those that are deleted."""
        from mlflow.entities import ViewType

        page = self.client.search_experiments(view_type=ViewType.ALL)
        found = list(page)
        while page.token:
            page = self.client.search_experiments(view_type=ViewType.ALL, page_token=page.token)
            found += page
        return [experiment.experiment_id for experiment in found]

    def _found(self, experiments: list[str], condition: str, newest: int | None, deleted: bool) -> list[Run]:
        from mlflow.entities import ViewType

        view = ViewType.DELETED_ONLY if deleted else ViewType.ACTIVE_ONLY
        order = [f"attributes.start_time {'ASC' if newest is None else 'DESC'}"]
        runs: list[Run] = []
        token = None
        while experiments:
            with _no_garbage_collection():
                page = self.client.search_runs(experiments, condition, view, newest or PAGE, order, token)
            runs += map(_run, page)
            token = page.token
            if newest or not token:
                break
        return runs


def tagged(key: str, value: str) -> str:
    """The filter for runs with this tag."""
    return f"tags.`{key}` = '{value}'"


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Of the objects that MLflow makes of a page, a hundred a run, none is garbage before the end: looking for it takes
    longer than all the rest."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _run(run: Any) -> Run:
    return Run(
        run_id=run.info.run_id,
        experiment_id=run.info.experiment_id,
        name=run.info.run_name,
        state=STATES.get(run.info.status, ""),
        tags=dict(run.data.tags),
        params=dict(run.data.params),
        metrics={key: value for key, value in run.data.metrics.items() if key != N and not key.startswith(BY_N)},
        artifact_uri=run.info.artifact_uri or "",
    )


def _download_folder(keep: bool) -> Path:
    folder = own_folder("downloads") if keep else _until_the_end()
    return Path(tempfile.mkdtemp(dir=folder))


@cache
def _until_the_end() -> Path:
    """A folder of this process's own."""
    folder = tempfile.mkdtemp(dir=own_folder("downloads"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
