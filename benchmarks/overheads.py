"""What comes on top of training: start-up, the first step, and the time between trials. All is wall-clock time.

A command's start is held against importing torch, Ray and MLflow, which a program that uses them pays at the least.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.harness import Row, main
from gahb.execution import connection
from gahb.execution.launch import launch
from gahb.grids import grid
from gahb.planning import calibration
from gahb.storage.local import Folder
from gahb.tracking import lookup
from gahb.tracking.record import Record

SHORT = {
    "dataset": "c_alpha",
    "resolution": 16,
    "width": 16,
    "n_test": 64,
    "batch_size": 32,
    "images": 32 * 400,
    "n_train": tuple(2**k for k in range(12)),
    "subset": ("A", "B"),
}
"""24 trials of a few seconds."""

COMMAND = [sys.executable, "-c", "from gahb_sweeps.cli import main; main()"]
ONE_STEP = ["n_train=1", "subset=A", "images=32"]


def lasts(command: Sequence[str], folder: str, rounds: int = 3) -> float:
    """The median time of a command in a folder."""
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def start_up() -> list[Row]:
    """The commands, on a record that is not there, and on one with a trial."""
    with tempfile.TemporaryDirectory() as folder:
        imports = lasts([sys.executable, "-c", "import torch, ray.tune, mlflow"], folder)
        seen = {
            "gahb-sweep --help": lasts([*COMMAND, "--help"], folder),
            "plan of 48 trials, no record yet": lasts([*COMMAND, "plan", "resolution_scaling"], folder),
        }
        begun = time.time()
        subprocess.run([*COMMAND, "launch", "demo", *ONE_STEP], cwd=folder, check=True, capture_output=True)
        whole = time.time() - begun
        (weights,) = Path(folder).glob("gahb-storage/trials/*/weights/*")
        seen |= {
            "launch until the first step is trained and evaluated": weights.stat().st_mtime - begun,
            "launch of one trial of one step, whole": whole,
            "launch again, nothing to do": lasts([*COMMAND, "launch", "demo", *ONE_STEP], folder),
            "plan of 48 trials, with a record": lasts([*COMMAND, "plan", "resolution_scaling"], folder),
        }
    baseline = "importing torch, Ray and MLflow"
    return [
        Row(work, baseline, imports / took, "", None, f"{took:.2f} s; {imports:.2f} s") for work, took in seen.items()
    ]


def between_trials() -> list[Row]:
    """24 short trials, one a core: from the end of the first on each core to the end of the last."""
    ends: list[tuple[str, float]] = []

    def say(line: str) -> None:
        if line.startswith("["):
            ends.append((line.split()[1].rstrip(":"), time.perf_counter()))

    cores = 1 if torch.cuda.is_available() else len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder, connection.connected(None):
        storage = Folder(Path(folder) / "storage")
        record = Record(f"sqlite:///{folder}/record.db", storage.url)
        launch(grid(SHORT), "short", storage=storage, record=record, say=say)
        work = {run.name: calibration.device_seconds(run) or 0 for run in lookup.finished_trials(record, "short")}
    rest = ends[cores:]
    taken, ideal = rest[-1][1] - ends[cores - 1][1], sum(work[name] for name, _ in rest) / cores
    gap = (taken - ideal) * cores / len(rest)
    typical = statistics.median(work.values())
    detail = f"{taken:.1f} s for {len(rest)} trials of {typical:.2f} s; {gap:.2f} s between two trials of a worker"
    ratio = taken / ideal
    baseline = "of the ideal, the sum of their training over the cores"
    return [Row("24 short trials, after the first", baseline, ratio, "≤ 1.3×", ratio <= 1.3, detail)]


def rows() -> Sequence[Row]:
    torch.set_num_threads(1)
    return [*start_up(), *between_trials()]


if __name__ == "__main__":
    main(rows, __doc__ or "")
