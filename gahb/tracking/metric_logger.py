"""The metric logger: a worker's hold on its trial's run, to which it alone writes.

A thread looks at the run every POLL_SECONDS. It brings new metrics in order, after an outage of any length too, tags
the run with how far training has got since, and finds out whether another worker has taken the trial over or the user
wants it to stop; then training is halted.

Nothing is logged twice. What the record has is known from the beginning, and a metric's time is that of its
evaluation, which a worker that comes by again finds in the storage (`Checkpoints.save_weights`): so a request that
arrives late from a worker given up for dead is the same row of MLflow's table, not another one.
"""

import logging
import os
import socket
import threading
import uuid
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from gahb.storage.retry import backoff
from gahb.tracking.client import is_retryable
from gahb.tracking.pace import Pace
from gahb.tracking.record_writer import RecordWriter
from gahb.tracking.run import Tag

if TYPE_CHECKING:
    from mlflow.entities import Metric

log = logging.getLogger(__name__)

POLL_SECONDS = 8.0
"""Seconds between two looks at the run, so that a trial is heard of every ten."""

BATCH = 1000
"""Metrics a request, MLflow's limit."""


class Superseded(Exception):
    """Another worker has taken over the trial."""


class Stopped(Exception):
    """The user wants the trial to stop."""


class MetricLogger:
    """Marks a trial's run as this worker's and as running; a context that ends when the thread has ended.

    Args:
        record: one that retries.
        run_id: of the trial.
        halt: set when training shall end; `check` says why.
        pace: of the training, which is told its steps.
    """

    def __init__(self, record: RecordWriter, run_id: str, halt: threading.Event, pace: Pace | None = None) -> None:
        from mlflow import MlflowClient

        self.run_id, self._halt, self._pace = run_id, halt, pace or Pace()
        self._attempt = f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:8]}"
        record.tag(run_id, {Tag.ATTEMPT: self._attempt})
        record.start(run_id)
        self._known = record.logged(run_id)
        self._client = MlflowClient(record.uri)
        self._waiting: list[Metric] = []
        self._news = threading.Condition()
        self._end: Exception | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> "MetricLogger":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._news:
            self._closing = True
            self._news.notify_all()
        self._thread.join()

    def log(self, rows: Iterable[tuple[Mapping[str, float], float]], step: int | None = None) -> None:
        """Take metrics, each mapping with the time of its evaluation in seconds since 1970.

        Args:
            rows: the metrics and the times.
            step: of all of them; that of a mapping is its `images_seen` if left out.
        """
        from mlflow.entities import Metric

        with self._news:
            for row, time in rows:
                at, milliseconds = int(row["images_seen"]) if step is None else step, round(1000 * time)
                for key, value in row.items():
                    if (key, at) not in self._known:
                        self._known.add((key, at))
                        self._waiting.append(Metric(key, float(value), milliseconds, at))
            self._news.notify_all()

    def flush(self) -> None:
        """Wait until the record has everything.

        Raises:
            Superseded, Stopped: as for `check`.
            Exception: MLflow refuses for good, for instance because the run was deleted.
        """
        with self._news:
            while self._waiting and not self._end:
                self._news.wait()
        self.check()

    def check(self) -> None:
        """Raise Superseded if another worker has taken over, or Stopped if the user wants to stop."""
        if self._end:
            raise self._end

    def _work(self) -> None:
        """The thread: look, write, wait. After a retryable error it backs off, any other ends it."""
        pauses = backoff()
        while True:
            try:
                self._look()
                self._write()
                pause, failed, pauses = POLL_SECONDS, False, backoff()
            except Exception as error:
                if not is_retryable(error):
                    self._finish(error)
                pause, failed = next(pauses), True
                log.warning("the record does not answer (%s); %d metrics wait", error, len(self._waiting))
            with self._news:
                if self._closing or self._end:
                    return
                if failed or not self._waiting:
                    self._news.wait(pause)

    def _write(self) -> None:
        while self._waiting and not self._end:
            batch = self._waiting[:BATCH]
            self._client.log_batch(self.run_id, metrics=batch)
            with self._news:
                del self._waiting[: len(batch)]
                self._news.notify_all()

    def _look(self) -> None:
        tags = self._client.get_run(self.run_id).data.tags
        if tags.get(Tag.ATTEMPT) != self._attempt:
            self._finish(Superseded(self.run_id))
        elif tags.get(Tag.STOP):
            self._finish(Stopped(self.run_id))
        elif news := self._pace.news():
            self._client.set_tag(self.run_id, Tag.PROGRESS, news)

    def _finish(self, end: Exception) -> None:
        with self._news:
            self._end = end
            self._halt.set()
            self._news.notify_all()
