"""A worker's part, carried out in this process: what becomes of a trial, its run and its files."""

import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
import torch

from gahb.data.dataset import prepare
from gahb.execution import worker_log
from gahb.execution.task import Task
from gahb.execution.worker import Report, RetryableError, run_trial
from gahb.tracking import lookup
from gahb.tracking.run import Run, Tag
from gahb.training.checkpoints import Checkpoints
from gahb.trial import Trial
from tests.helpers import Place, new_trial

CPU = torch.device("cpu")
SMALL = {
    "dataset": "c_alpha", "resolution": 8, "width": 4, "blocks": 1, "n_train": 3, "n_test": 5, "batch_size": 8,
    "images": 8 * 40,
}  # fmt: skip
STEPS = [16, 32, 40]
"""After which its PSNR is measured."""

MakeTask = Callable[..., Task]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("worker"))


@pytest.fixture(scope="module")
def new_task(place: Place) -> MakeTask:
    """Make a task, each of a trial of its own."""
    seeds = count()

    def make(**changes: Any) -> Task:
        trial = Trial.of({**SMALL, "seed": next(seeds)})
        prepare(trial.dataset, place.store, trial.split.needed)
        data_hash = trial.dataset.hash(place.store)
        signature = trial.signature(data_hash)
        run_id = new_trial(place, f"seed{trial.seed}", signature)
        task = Task(
            trial.flat(), signature, data_hash, run_id, place.store.uri, place.record.uri, 60, 5, 1, 0, "", 10**9
        )
        return replace(task, **changes)

    return make


def run_of(place: Place, task: Task) -> Run:
    return lookup.find(place.record, task.run_id)


def log_of(place: Place, task: Task) -> list[str]:
    """What its workers logged, a line each without the time; tracebacks are left out."""
    texts = [text for _, text in worker_log.texts(place.store, task.folder)]
    return re.findall(r"^[\d-]+ [\d:,]+ ([A-Z]+ .*)$", "\n".join(texts), re.MULTILINE)


def fail_with(message: str, images_seen: float = 0) -> Report:
    """Raise at the first evaluation after so many images."""

    def report(row: dict[str, float]) -> None:
        if row["images_seen"] >= images_seen:
            raise RuntimeError(message)

    return report


def test_a_trial_is_carried_out_and_a_second_worker_adds_nothing(place: Place, new_task: MakeTask) -> None:
    task = new_task()
    reported: list[float] = []
    run_trial(task, CPU, lambda row: reported.append(row["images_seen"]))
    assert reported == [8 * step for step in STEPS]
    first = run_of(place, task)
    files = {file.name: file.read_bytes() for file in place.artifact(task.run_id, "").iterdir() if file.is_file()}
    assert first.state == "finished" and first.tags[Tag.SHARE] == "1" and "weights.safetensors" in files
    assert place.record.history(task.run_id, "images_seen") == [(8 * step, 8.0 * step) for step in STEPS]

    run_trial(task, CPU, lambda row: None)
    second = run_of(place, task)
    assert second.state == "finished" and second.metrics == first.metrics
    for key in first.metrics:
        history = place.record.history(task.run_id, key)
        assert (
            len(history) == len(set(history)) == (1 if key in ("images_per_second", "peak_memory_gb") else len(STEPS))
        )
    assert {name: place.artifact(task.run_id, name).read_bytes() for name in files} == files


@pytest.mark.parametrize(
    ("retries", "checkpoint_seconds", "state"),
    [(1, 60.0, "running"), (0, 60.0, "failed"), (0, 0.0, "running")],
    ids=["a try is left", "none is left", "none is left but it got further"],
)
def test_what_a_worker_cannot_get_over_is_left_to_the_next_one_if_there_may_be_one(
    retries: int, checkpoint_seconds: float, state: str, place: Place, new_task: MakeTask
) -> None:
    task = new_task(retries=retries, checkpoint_seconds=checkpoint_seconds)
    if state == "failed":
        run_trial(task, CPU, fail_with("no more"))
    else:
        with pytest.raises(RetryableError, match="RuntimeError: no more"):
            run_trial(task, CPU, fail_with("no more"))
    run = run_of(place, task)
    assert run.state == state and run.reason == "RuntimeError: no more"
    assert place.artifact(task.run_id, "traceback.txt").read_text().endswith("RuntimeError: no more\n")


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("", "6 workers died at step 0 or soon after"),
        ("RuntimeError: the disk is gone", "RuntimeError: the disk is gone"),
    ],
)
def test_a_trial_whose_workers_get_no_further_fails_of_what_the_last_one_died_of(
    reason: str, message: str, place: Place, new_task: MakeTask
) -> None:
    task = new_task()
    place.writer.tag(task.run_id, {Tag.STARTS: "0:6", Tag.REASON: reason})
    run_trial(task, CPU, fail_with("it trains"))
    run = run_of(place, task)
    assert run.state == "failed" and run.reason == message


def test_tries_count_from_the_newest_checkpoint(place: Place, new_task: MakeTask) -> None:
    task = new_task(checkpoint_seconds=0, retries=0)
    for before, after in ((0, 16), (16, 40)):
        with pytest.raises(RetryableError):
            run_trial(task, CPU, fail_with("again", 8 * after))
        assert run_of(place, task).tags[Tag.STARTS] == f"{before}:1"
        assert Checkpoints(place.store, task.folder).step == after
    assert log_of(place, task).count("INFO try 1 from step 16") == 1


def test_a_trial_that_the_user_stopped_does_not_begin(place: Place, new_task: MakeTask) -> None:
    task = new_task()
    place.writer.tag(task.run_id, {Tag.STOP: "true"})
    run_trial(task, CPU, fail_with("it trains"))
    run = run_of(place, task)
    assert run.state == "interrupted" and run.reason == "stopped by the user" and Tag.STARTS not in run.tags


def test_a_worker_that_waits_before_its_try_can_be_stopped(
    place: Place, new_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gahb.tracking.metric_logger.POLL_SECONDS", 0.2)
    task = new_task(retries=9)
    place.writer.tag(task.run_id, {Tag.STARTS: "0:9"})  # the tenth try begins after a minute
    began = time.monotonic()
    thread = threading.Thread(target=run_trial, args=(task, CPU, fail_with("it trains")))
    thread.start()
    while run_of(place, task).tags[Tag.STARTS] != "0:10":
        time.sleep(0.1)
    place.writer.tag(task.run_id, {Tag.STOP: "true"})
    thread.join()
    run = run_of(place, task)
    assert run.state == "interrupted" and run.reason == "stopped by the user" and time.monotonic() - began < 50


def test_a_superseded_worker_leaves_the_run_to_the_other(
    place: Place, new_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gahb.tracking.metric_logger.POLL_SECONDS", 0.2)
    task = new_task(retries=9)
    place.writer.tag(task.run_id, {Tag.STARTS: "0:9"})
    thread = threading.Thread(target=run_trial, args=(task, CPU, fail_with("it trains")))
    thread.start()
    while run_of(place, task).tags[Tag.STARTS] != "0:10":
        time.sleep(0.1)
    place.writer.tag(task.run_id, {Tag.ATTEMPT: "another worker"})
    thread.join()
    assert run_of(place, task).state == "running"
    assert log_of(place, task)[-1] == "INFO another worker has taken over"
