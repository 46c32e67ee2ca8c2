"""Many small trials that write to the record at once: how fast it takes them, and whether all of it is there."""

import multiprocessing
import threading
import time
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier

from chaos.sweep import KEYS
from gahb.tracking.metric_logger import MetricLogger
from gahb.tracking.record_writer import RecordWriter
from gahb.tracking.run import Tag

EXPERIMENT = "writers"
EVALUATIONS = 40


@dataclass(frozen=True)
class Load:
    """What so many processes wrote, so many metrics at each evaluation, and how much of it is missing or twice."""

    writers: int
    evaluations: int
    keys: int
    seconds: float
    lost: int
    doubled: int

    @property
    def good(self) -> bool:
        return not self.lost and not self.doubled

    @property
    def metrics_per_second(self) -> float:
        return self.writers * self.evaluations * self.keys / self.seconds


def measure(uri: str, count: int) -> Load:
    """Let so many processes write a trial's metrics each, as fast as the record of a server takes it."""
    record = RecordWriter(uri, "")
    runs = [record.create(EXPERIMENT, f"writer-{i}", params={}, tags={Tag.KIND: "writer"}) for i in range(count)]
    context = multiprocessing.get_context("fork")  # what is imported is imported once
    barrier = context.Barrier(count + 1)
    processes = [context.Process(target=_write, args=(uri, run, barrier)) for run in runs]
    for process in processes:
        process.start()
    barrier.wait()
    begun = time.monotonic()
    for process in processes:
        process.join()
    seconds = time.monotonic() - begun
    lost = doubled = 0
    for run in runs:
        for key in KEYS:
            history = record.history(run, key)
            lost += len(set(_metrics(key)) - set(history))
            doubled += len(history) - len(set(history))
    return Load(count, EVALUATIONS, len(KEYS), seconds, lost, doubled)


def _metrics(key: str) -> list[tuple[int, float]]:
    """What a writer logs under a key: (images seen, value) pairs."""
    return [(step, float(step if key == "images_seen" else step * len(key))) for step in range(1, EVALUATIONS + 1)]


def _write(uri: str, run: str, barrier: Barrier) -> None:
    """What a process does: an evaluation after the other, each with all metrics so far, as a trial does."""
    metrics = {key: dict(_metrics(key)) for key in KEYS}
    rows = [({key: metrics[key][step] for key in KEYS}, 1e9 + step) for step in range(1, EVALUATIONS + 1)]
    barrier.wait()
    with MetricLogger(RecordWriter(uri, "", retry=True), run, threading.Event()) as writer:
        for i in range(len(rows)):
            writer.log(rows[: i + 1])
            writer.flush()
