"""Steps a second of k processes on one GPU together, as `launch` lets small trials share it, with and without MPS."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from benchmarks.gpu import training
from benchmarks.gpu.checks import COMPILE, ON_GPU, Checks, Found, Skipped, synchronize, trial

PROCESSES = (1, 2, 4, 8) if ON_GPU else (2,)
SECONDS = 5.0 if ON_GPU else 0.2
PATIENCE, LIMIT = 40, 55
"""Seconds that a process waits for the others, and that all may take: less than GRACE, so that MPS is ended."""

MPS = "nvidia-cuda-mps-control"


def checks() -> Checks:
    first: list[float] = []
    for count in PROCESSES:
        yield f"processes: {count}", partial(together, count, dict(os.environ), first)
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        with mps(env) as reason:
            for count in PROCESSES if not reason else PROCESSES[:1]:
                yield f"processes under MPS: {count}", partial(together, count, env, first, reason)


@contextlib.contextmanager
def mps(env: dict[str, str]) -> Iterator[str]:
    """MPS in the folders of the environment within the block, and "" or why there is none."""
    if not ON_GPU or not shutil.which(MPS):
        yield f"there is no {MPS}" if ON_GPU else "there is no GPU"
        return
    begun = subprocess.run([MPS, "-d"], env=env, capture_output=True, text=True)
    try:
        yield f"MPS does not start: {begun.stderr or begun.stdout}".strip() if begun.returncode else ""
    finally:
        if not begun.returncode:
            subprocess.run([MPS], env=env, input="quit\n", text=True, capture_output=True)


def together(count: int, env: dict[str, str], first: list[float], skipped: str = "") -> Found:
    if skipped:
        raise Skipped(skipped)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        command = [sys.executable, "-m", "benchmarks.gpu.sharing", folder, str(count)]
        children = [
            stack.enter_context(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True))
            for _ in range(count)
        ]
        try:
            said = [child.communicate(timeout=LIMIT)[0] for child in children]
        except subprocess.TimeoutExpired:
            for child in children:
                child.kill()
            raise
    if failed := [child.returncode for child in children if child.returncode]:
        raise RuntimeError(f"{len(failed)} of {count} processes failed, the first with exit status {failed[0]}")
    rates = [float(rate) for rate in said]
    first += [] if first else [sum(rates)]
    return Found(f"{sum(rates):.0f} steps/s in all, {sum(rates) / first[0]:.2f} × those of {PROCESSES[0]}")


def child(folder: Path, count: int) -> None:
    """Print the steps a second of a small trial from when all `count` processes are ready."""
    torch.set_num_threads(1)
    if ON_GPU:
        torch.cuda.set_per_process_memory_fraction(1 / count)
    fast = {"resolution": 16, "width": 16, "batch_size": 64, "precision": "bfloat16", "compile": COMPILE[-1]}
    take, _ = training.stepper(trial(**fast))
    for number in range(5):
        take(number)
    synchronize()
    (folder / str(os.getpid())).touch()
    late = time.monotonic() + PATIENCE
    while len(list(folder.iterdir())) < count:
        if time.monotonic() > late:
            raise TimeoutError("the other processes do not come")
        time.sleep(0.01)
    began, taken = time.perf_counter(), 0
    while time.perf_counter() - began < SECONDS:
        for _ in range(20):
            take(taken)
            taken += 1
        synchronize()
    print(taken / (time.perf_counter() - began))


if __name__ == "__main__":
    child(Path(sys.argv[1]), int(sys.argv[2]))
