"""A compiled step is one CUDA graph: nothing beside it is launched, its bits are those of its launches one by one, and
trials that follow each other in threads of one process, as Tune starts them, neither slow down nor leave memory behind.
"""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import torch

from benchmarks.gpu import training
from benchmarks.gpu.checks import (
    ARCHITECTURES,
    COMPILE,
    DEVICE,
    ON_GPU,
    Checks,
    Found,
    Skipped,
    at_most,
    equal,
    images,
    synchronize,
    trial,
)
from gahb.denoising import noise
from gahb.training import step

FAST = {"precision": "bfloat16", "compile": COMPILE[-1]}
STEPS = 10
TRIALS: dict[str, dict[str, Any]] = {
    "first": {"seed": 0},
    "second": {"seed": 1},
    "third": {"seed": 2},
    "fourth, of another kind": {"resolution": 40},
    "fifth, of the first kind": {"seed": 3},
}
"""The trials of a worker, one after the other."""

WINDOW = 300 if ON_GPU else 2
"""Steps that are timed at once, three times a trial."""

BESIDE = 8
"""Launches that a step may make beside its graph: learning rate, seed."""

MOST_SLOWER = 1.25
"""The slowest of the times of a step over the fastest."""

MOST_MORE = 64
"""MB; the pool of a graph that stays would take more."""


def checks() -> Checks:
    yield "launches a step", launches
    for name in ARCHITECTURES:
        yield f"{name}: weights with and without a graph", partial(one_by_one, name)
    times: list[float] = []
    reserved: list[float] = []
    for label, changes in TRIALS.items():
        yield f"{label}: a trial in a thread of its own", partial(in_a_thread, changes, times, reserved)
    yield "slowest over fastest of the first kind", lambda: slower(times)
    yield (
        "memory reserved after one of them more than after another",
        lambda: at_most(max(reserved) - min(reserved), MOST_MORE, " MB"),
    )


def launches() -> Found:
    if not ON_GPU:
        raise Skipped("a CPU has no graphs")
    take, _ = training.stepper(trial(**FAST))
    take(0)
    synchronize()
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        for number in range(1, STEPS + 1):
            take(number)
        synchronize()
    names = Counter(event.name for event in profile.events())
    graphs = names["cudaGraphLaunch"] / STEPS
    beside = sum(count for name, count in names.items() if "LaunchKernel" in name or name == "cudaMemcpyAsync") / STEPS
    found = f"{graphs:g} graph, {beside:g} beside it"
    return Found(found, f"1 graph, ≤ {BESIDE} beside it", graphs == 1 and beside <= BESIDE)


def one_by_one(name: str) -> Found:
    """`STEPS` steps as a trial takes them, and launched without a graph."""
    chosen = trial(architecture=name, batch_size=64, **FAST)
    take, net = training.stepper(chosen)
    for number in range(STEPS):
        take(number)
    bare, optimizer = step.start(chosen, DEVICE)
    loss_of, shown = step.loss_function(chosen, DEVICE), images(chosen)
    for number in range(STEPS):
        step.set_learning_rate(optimizer, step.learning_rate(chosen, number))
        draws = noise.generator("batch", chosen.seed, chosen.subset, number, device=DEVICE)
        noisy, target, _ = noise.noisy_batch(shown, chosen.batch_size, draws)
        step.training_step(loss_of, bare, optimizer, noisy, target, chosen.precision)
    return equal([training.digest(net), training.digest(bare)])


def in_a_thread(changes: dict[str, Any], times: list[float], reserved: list[float]) -> Found:
    with ThreadPoolExecutor(1) as thread:
        windows = thread.submit(steps, changes).result()
    training.forget()
    left = torch.cuda.memory_reserved() / 1e6 if ON_GPU else 0.0
    if "seed" in changes:
        times += windows
        reserved.append(left)
    return Found(f"{', '.join(f'{ms:.2f}' for ms in windows)} ms a step; {left:.0f} MB reserved after it")


def steps(changes: dict[str, Any]) -> list[float]:
    """Milliseconds a step of a new trial, three times."""
    windows = []
    take, _ = training.stepper(trial(**FAST, **changes))
    for number in range(5):
        take(number)
    for _ in range(3):
        synchronize()
        began = time.perf_counter()
        for number in range(WINDOW):
            take(5 + number)
        synchronize()
        windows.append(1e3 * (time.perf_counter() - began) / WINDOW)
    return windows


def slower(times: list[float]) -> Found:
    ratio = max(times) / min(times)
    return Found(f"{ratio:.2f}", f"≤ {MOST_SLOWER}", ratio <= MOST_SLOWER if ON_GPU else None)
