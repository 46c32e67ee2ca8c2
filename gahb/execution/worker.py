"""A worker's part: carry one trial out, from prepared images to a finished run. It knows nothing of Ray."""

import contextlib
import json
import logging
import math
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

import gahb
from gahb import hardware
from gahb.data import splits
from gahb.data.dataset import Prepared
from gahb.errors import UserError
from gahb.execution import spot_notice, worker_log
from gahb.execution.task import Task
from gahb.figures import style
from gahb.storage.base import Storage, storage_at
from gahb.storage.retry import with_retries
from gahb.tracking.metric_logger import MetricLogger, Stopped, Superseded
from gahb.tracking.record import Record
from gahb.training import loop, weights
from gahb.training.checkpoints import Checkpoints
from gahb.training.out_of_memory import OutOfMemory
from gahb.trial import Trial

log = logging.getLogger(__name__)

MAX_BACKOFF_SECONDS = 60.0
"""Seconds that a worker waits, at most, before it tries again what the last one died of."""


class RetriesExhausted(Exception):
    """The trial has failed too often without getting further. The message says of what."""


class RetryableError(Exception):
    """Something went wrong that another worker may get over. The message says what."""


def run_trial(task: Task, device: torch.device, report: Callable[[dict[str, float]], None]) -> None:
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
    storage = storage_at(task.storage)
    record = Record(task.record_uri, retry=True)
    run_id = task.run_id
    checkpoints = Checkpoints(storage, task.folder)
    control = loop.Control()
    with (
        worker_log.kept(storage, task.folder),
        MetricLogger(record, run_id, control.halt) as writer,
        spot_notice.watched(control.save),
    ):
        step, last = 0, False
        try:
            step, last = _admit(task, record, checkpoints, writer, control)
            _carry_out(task, device, report, record, checkpoints, writer, control)
            log.info("finished")
        except Superseded:
            log.info("another worker has taken over")
        except Stopped:
            log.info("stopped")
            record.interrupt(run_id, "stopped by the user")
        except (loop.Diverged, OutOfMemory, RetriesExhausted, UserError) as error:
            log.error("%s", error)
            with contextlib.suppress(Superseded, Stopped):
                writer.flush()
                record.fail(run_id, str(error))
        except Exception as error:
            log.exception("the worker ends")
            reason = f"{type(error).__name__}: {error}"[:500]
            record.tag(run_id, {"gahb.reason": reason})
            record.add_text(run_id, traceback.format_exc(), "traceback.txt")
            if not last or checkpoints.step > step:
                raise RetryableError(reason) from error
            record.fail(run_id, reason)


def _admit(
    task: Task, record: Record, checkpoints: Checkpoints, writer: MetricLogger, control: loop.Control
) -> tuple[int, bool]:
    """Count the workers that have started from this checkpoint, and wait longer before each next one: the checkpoint's
    step, and whether this worker is the last.

    Raises:
        RetriesExhausted: there were too many.
        Stopped: the user did not want it to start any more.
    """
    tags = record.tags(task.run_id)
    if tags.get("gahb.stop"):
        raise Stopped
    step = with_retries(lambda: checkpoints.step)
    before, _, count = tags.get("gahb.starts", "").partition(":")
    tries = int(count) + 1 if before == str(step) else 1
    log.info("try %d from step %d", tries, step)
    if tries > task.retries + 1:
        raise RetriesExhausted(tags.get("gahb.reason") or f"{tries - 1} workers died at step {step} or soon after")
    record.tag(task.run_id, {"gahb.starts": f"{step}:{tries}"})
    if tries > 1:
        control.halt.wait(min(2.0 ** (tries - 2), MAX_BACKOFF_SECONDS))
        writer.check()
    return step, tries > task.retries


def _carry_out(
    task: Task,
    device: torch.device,
    report: Callable[[dict[str, float]], None],
    record: Record,
    checkpoints: Checkpoints,
    writer: MetricLogger,
    control: loop.Control,
) -> None:
    trial = Trial.of(task.flat)
    storage = checkpoints.storage
    hardware.reset_peak(device)
    prepared = with_retries(lambda: Prepared.open(storage, task.data_hash))
    train_images = splits.training_images(prepared, trial)
    test_images = splits.held_out_images(prepared, trial)
    subset_hash = splits.subset_hash(train_images)
    record.tag(task.run_id, {"gahb.subset_hash": subset_hash})

    def on_evaluation(history: list[loop.Evaluation]) -> None:
        writer.log([(evaluation.metrics(), evaluation.time) for evaluation in history])
        row = history[-1].metrics()
        log.info("%s", ", ".join(f"{key} {value:.4g}" for key, value in row.items()))
        report(row)

    def wait(seconds: float) -> None:
        control.halt.wait(seconds)
        writer.check()

    try:
        trained = loop.train(
            trial,
            train_images,
            test_images,
            device=device,
            checkpoints=checkpoints,
            checkpoint_seconds=task.checkpoint_seconds,
            on_evaluation=on_evaluation,
            control=control,
        )
    except loop.Halted:
        writer.check()
        raise
    with_retries(checkpoints.flush, wait=wait)
    total = trial.steps * trial.batch_size
    speed = {"images_per_second": total / trained.seconds} if math.isfinite(trained.seconds) else {}
    spent = {"images_seen": total, **speed, "peak_memory_gb": hardware.peak_memory(device) / 1e9}
    writer.log([with_retries(lambda: _first(storage, f"{task.folder}/spent.json", spent), wait=wait)])
    share = task.gpus if device.type == "cuda" else task.cpus
    record.tag(task.run_id, {"gahb.device": hardware.name(device), "gahb.share": share, "gahb.reason": ""})
    card = {
        "signature": task.signature,
        "trial": task.flat,
        "data_hash": task.data_hash,
        "content_sha256": prepared.manifest["content_sha256"],
        "subset_hash": subset_hash,
        "images_seen": total,
        "metrics": trained.history[-1].curve.summary(),
        "gahb_version": gahb.__version__,
        "torch_version": torch.__version__,
    }
    with tempfile.TemporaryDirectory() as folder:
        weights.save(Path(folder), trained.denoiser, card)
        weights.save_weight_history(Path(folder), with_retries(checkpoints.weight_history, wait=wait))
        style.write_trial(Path(folder), trained, test_images)
        writer.flush()
        record.add_artifacts(task.run_id, Path(folder))
    record.finish(task.run_id)


def _first(storage: Storage, name: str, row: dict[str, float]) -> tuple[dict[str, float], float]:
    """The metrics of the worker that was first to keep them under that name, and when that was. Raises OSError."""
    content = json.dumps(row).encode()
    if not storage.create(name, content):
        try:
            row = json.loads(storage.read(name))
        except ValueError:
            storage.write(name, content)
    return row, storage.modified(name) or time.time()
