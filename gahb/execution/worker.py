"""A worker's part: carry one trial out, from prepared images to a finished run. It knows nothing of Ray."""

import contextlib
import json
import logging
import math
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import gahb
from gahb import hardware
from gahb.data.dataset import Prepared
from gahb.data.splits import subset_hash
from gahb.errors import UserError
from gahb.execution import spot_notice, worker_log
from gahb.execution.task import Task
from gahb.figures.trial import stages, write_trial
from gahb.models.loading import fit
from gahb.storage.base import storage_at
from gahb.storage.local import OddFile
from gahb.storage.retry import pause, with_retries
from gahb.text import without_passwords
from gahb.tracking import notes, parsing
from gahb.tracking.client import is_retryable
from gahb.tracking.logged_models import log_models
from gahb.tracking.metric_logger import MetricLogger, Stopped, Superseded
from gahb.tracking.pace import Pace
from gahb.tracking.record_writer import RecordWriter
from gahb.tracking.run import BY_N, PSNRS, Tag
from gahb.training import loop, weights
from gahb.training.checkpoint_names import folder_of
from gahb.training.checkpoints import Checkpoints
from gahb.training.loop import Trained, Training
from gahb.training.out_of_memory import OutOfMemory
from gahb.trial import Trial

log = logging.getLogger(__name__)

MAX_BACKOFF_SECONDS = 60.0
"""Seconds that a worker waits, at most, before it tries again what the last one died of."""

MOST_OF_TOTALS = 1 << 12
"""Bytes of the file that holds them."""

Report = Callable[[dict[str, float]], None]
"""Takes the metrics of a new evaluation."""


class RetriesExhausted(Exception):
    """The trial has failed too often without getting further. The message says of what."""


class RetryableError(Exception):
    """Something went wrong that another worker may get over. The message says what."""


def run_trial(task: Task, device: torch.device, report: Report) -> None:
    """Train the trial from where its checkpoint stands, log to its run, and leave weights, card, curve and examples.

    A trial that cannot succeed, or that the user stops, ends here with its reason in the record.

    Args:
        task: the trial.
        device: where to train.
        report: called with each new evaluation's metrics.

    Raises:
        RetryableError: the next worker may get over it.
        Exception: the record or the storage cannot be used at all.
    """
    checkpoints = Checkpoints(storage_at(task.storage), task.folder)
    record = RecordWriter(task.record_uri, checkpoints.storage.url, retry=True)
    control, pace = loop.Control(), Pace()
    with (
        worker_log.kept(checkpoints.storage, task.folder),
        MetricLogger(record, task.run_id, control.halt, pace) as metric_logger,
        spot_notice.watched(control.save),
    ):
        run = TrialRun(task, device, record, checkpoints, metric_logger, control, pace)
        try:
            run.admit()
            run.publish(run.train(report))
            log.info("finished")
        except Superseded:
            log.info("another worker has taken over")
        except Stopped:
            log.info("stopped")
            if news := pace.news():
                record.tag(task.run_id, {Tag.PROGRESS: news})
            record.interrupt(task.run_id, "stopped by the user")
        except (loop.Diverged, OutOfMemory, RetriesExhausted, UserError) as error:
            log.error("%s", error)
            with contextlib.suppress(Superseded, Stopped):
                metric_logger.flush()
                record.fail(task.run_id, str(error))
        except Exception as error:
            log.exception("the worker ends")
            reason = without_passwords(f"{type(error).__name__}: {error}")[:500]
            record.tag(task.run_id, {Tag.REASON: reason})
            record.add_text(task.run_id, without_passwords(traceback.format_exc()), "traceback.txt")
            if run.may_be_retried:
                raise RetryableError(reason) from error
            record.fail(task.run_id, reason)


class TrialRun:
    """One worker's try at a trial: `admit`, `train` and `publish`, one after the other.

    Each raises Superseded or Stopped when this worker shall not go on.

    Args:
        task: the trial.
        device: where to train.
        record: one that tries again.
        checkpoints: of the trial.
        metric_logger: of the trial's run.
        control: of the training; the metric logger sets `halt`.
        pace: is told each step.
    """

    def __init__(
        self,
        task: Task,
        device: torch.device,
        record: RecordWriter,
        checkpoints: Checkpoints,
        metric_logger: MetricLogger,
        control: loop.Control,
        pace: Pace,
    ) -> None:
        self.task, self.device, self.pace = task, device, pace
        self.record, self.checkpoints, self.metric_logger, self.control = record, checkpoints, metric_logger, control
        self.first_step, self.is_last = 0, False

    @cached_property
    def trial(self) -> Trial:
        return Trial.of(self.task.flat)

    @cached_property
    def prepared(self) -> Prepared:
        return with_retries(lambda: Prepared.open(self.checkpoints.storage, self.task.data_hash))

    @cached_property
    def training(self) -> Training:
        """The trial with its images."""
        train_images = self.trial.split.training_images(self.prepared)
        test_images = self.trial.split.held_out_images(self.prepared)
        return Training(self.trial, train_images, test_images, self.device)

    @cached_property
    def subset_hash(self) -> str:
        return subset_hash(self.training.train_images)

    @property
    def may_be_retried(self) -> bool:
        """Whether another worker may try what this one failed at: it is not the last, or got further."""
        return not self.is_last or self.checkpoints.step > self.first_step

    def admit(self) -> None:
        """Count the workers that have started from this checkpoint, and wait longer before each next one.

        Raises:
            RetriesExhausted: there were too many.
            Stopped: the user did not want it to start any more.
        """
        tags = self.record.tags(self.task.run_id)
        if tags.get(Tag.STOP):
            raise Stopped
        step = with_retries(lambda: self.checkpoints.step)
        before, count = parsing.starts(tags)
        tries = count + 1 if before == step else 1
        log.info("try %d from step %d", tries, step)
        if tries > self.task.retries + 1:
            raise RetriesExhausted(tags.get(Tag.REASON) or f"{tries - 1} workers died at step {step} or soon after")
        self.record.tag(self.task.run_id, {Tag.STARTS: f"{step}:{tries}"})
        if tries > 1:
            self._wait(pause(tries - 2, MAX_BACKOFF_SECONDS))
        self.first_step, self.is_last = step, tries > self.task.retries

    def train(self, report: Report) -> Trained:
        """Train to the end, with every evaluation logged and reported. Raises what `loop.train` raises."""
        hardware.reset_peak(self.device)
        self.record.tag(self.task.run_id, {Tag.SUBSET_HASH: self.subset_hash})

        def on_evaluation(history: list[loop.Evaluation]) -> None:
            self.metric_logger.log([(evaluation.metrics(), evaluation.time) for evaluation in history])
            row = history[-1].metrics()
            log.info("%s", ", ".join(f"{k} {v:,}" if isinstance(v, int) else f"{k} {v:.4g}" for k, v in row.items()))
            report({**row, "ended": loop.has_ended(self.trial, history)})

        course = [Checkpoints(self.checkpoints.storage, folder_of(signature)) for signature in self.task.course]
        options = loop.Options(self.task.checkpoint_seconds, on_evaluation, self.pace.note, self.control, course)
        try:
            return loop.train(self.training, self.checkpoints, options)
        except loop.Halted:
            self.metric_logger.check()
            raise

    def publish(self, trained: Trained) -> None:
        """Log what the training took, leave its results as the run's artifacts, and finish the run."""
        with_retries(self.checkpoints.flush, wait=self._wait)
        self._log_totals(trained)
        with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(1) as beside:
            folder = Path(name)
            weights.save(folder, trained.denoiser, self._card(trained))
            like = trained.denoiser.net.state_dict()
            history = with_retries(lambda: self.checkpoints.weight_history(like), wait=self._wait)
            weights.save_weight_history(folder, history)
            logged = beside.submit(self._log_checkpoints, trained, history)
            write_trial(folder, trained, self.training.test_images)
            logged.result()
            self.metric_logger.flush()
            self.record.add_artifacts(self.task.run_id, folder)
        self.record.finish(self.task.run_id)

    def _log_checkpoints(self, trained: Trained, history: Mapping[int, dict[str, Tensor]]) -> None:
        """Log the evaluations whose weights are kept as models, and what these make of held-out images. Most of the
        time that it takes is waiting.

        Args:
            trained: the training.
            history: images seen → weights.
        """
        self.metric_logger.flush()
        task, test_images = self.task, self.training.test_images
        rows = [(evaluation.metrics(), evaluation.time) for evaluation in trained.history]
        kept = [(row, time) for row, time in rows if row["images_seen"] in history]
        dataset = (self.trial.dataset.name, task.data_hash)

        def log_all() -> None:
            log_models(self.record, task.run_id, task.flat, dataset, kept)
            models = ((images, fit(self.trial.architecture, tensors)) for images, tensors in history.items())
            shown = (stage for images, model in models for stage in stages(images, model.to(self.device), test_images))
            self.record.add_images(task.run_id, shown)

        with_retries(log_all, is_retryable, wait=self._wait)

    def _wait(self, seconds: float) -> None:
        self.control.halt.wait(seconds)
        self.metric_logger.check()

    def _log_totals(self, trained: Trained) -> None:
        """Log images seen, speed and memory of the whole training, and tag the run with where that was."""
        total = trained.history[-1].images_seen
        speed = {"images_per_second": total / trained.seconds} if math.isfinite(trained.seconds) else {}
        totals = {"images_seen": total, **speed, "peak_memory_gb": hardware.peak_memory(self.device) / 1e9}
        self.metric_logger.log([with_retries(lambda: self._first_totals(totals), wait=self._wait)])
        by_n = {f"{BY_N}{key}": trained.history[-1].metrics()[key] for key in PSNRS}
        self.metric_logger.log([(by_n, trained.history[-1].time)], step=self.trial.n_train)
        share = self.task.gpus if self.device.type == "cuda" else self.task.cpus
        tags: dict[str, Any] = {Tag.DEVICE: hardware.name(self.device), Tag.SHARE: share, Tag.REASON: ""}
        tags |= notes.of_finished_trial(self.task.flat, self.task.run_id)
        if trained.images_reused:
            tags[Tag.IMAGES_REUSED] = trained.images_reused
        self.record.tag(self.task.run_id, tags)

    def _first_totals(self, totals: dict[str, float]) -> tuple[dict[str, float], float]:
        """The totals of the worker that was the first to come so far, and when that was. Raises OSError."""
        storage, name = self.checkpoints.storage, f"{self.task.folder}/spent.json"
        content = json.dumps(totals).encode()
        if not storage.create(name, content):
            try:
                first = json.loads(storage.read(name, MOST_OF_TOTALS))
                if first["images_seen"] != totals["images_seen"] or not all(map(math.isfinite, first.values())):
                    raise ValueError
                totals = first
            except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OddFile):  # it is damaged
                storage.write(name, content)
        return totals, storage.modified(name) or time.time()

    def _card(self, trained: Trained) -> dict[str, Any]:
        return {
            "signature": self.task.signature,
            "trial": self.task.flat,
            **({"plugins": self.trial.plugins} if self.trial.plugins else {}),
            "data_hash": self.task.data_hash,
            "content_sha256": self.prepared.manifest["content_sha256"],
            "subset_hash": self.subset_hash,
            "images_seen": trained.history[-1].images_seen,
            "metrics": trained.history[-1].curve.summary(),
            "gahb_version": gahb.__version__,
            "torch_version": torch.__version__,
        }
