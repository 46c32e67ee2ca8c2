"""Training steps of Table 1's networks and BF-CNN in every precision: milliseconds, the host's part of them, the share
of what products of matrices reach in that precision, and the ratio to the textbook loop with torch's defaults.
"""

import contextlib
import statistics
import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch

from benchmarks.gpu import training
from benchmarks.gpu.checks import COMPILE, DEVICE, NETWORKS, ON_GPU, Checks, Found, fitting, images, synchronize, trial
from benchmarks.harness import matrix_rate, torchs_defaults
from benchmarks.training import textbook_steps
from gahb import hardware
from gahb.training import cost, step

SECONDS = 2.0 if ON_GPU else 0.02
"""How long steps are timed."""

MORE = 2
"""Times as much memory as ours that the textbook loop may take."""

BATCHES = 4
"""Batches of an epoch of the textbook loop."""

WAYS = [
    (precision, compile)
    for precision, compile in (
        ("bfloat16", True),
        ("bfloat16", False),
        ("tf32", True),
        ("tf32", False),
        ("float32", False),
        ("float32", True),
    )
    if compile in COMPILE
]
"""What matters most comes first."""


def checks() -> Checks:
    for name, flat in NETWORKS.items():
        yield f"{name}: textbook loop", partial(textbook, name, flat)
    for precision, compile in WAYS:
        for name, flat in NETWORKS.items():
            changes = {**flat, "precision": precision, "compile": compile}
            yield f"{name}, {precision}{', compiled' if compile else ''}", partial(ours, name, changes)


baselines: dict[str, float] = {}
"""Network → seconds an image of the textbook loop."""


def textbook(name: str, flat: dict[str, Any]) -> Found:
    torchs_defaults()
    training.forget()
    chosen = fitting(trial(**flat), times=MORE)
    take = textbook_steps(chosen, images(chosen).repeat(-(-BATCHES * chosen.batch_size // chosen.n_train), 1, 1, 1))
    seconds, _ = timed(lambda number: take())
    baselines[name] = seconds / chosen.batch_size
    return Found(f"{1e3 * seconds:.2f} ms, batch {chosen.batch_size}")


def ours(name: str, changes: dict[str, Any]) -> Found:
    training.forget()
    hardware.reset_peak(DEVICE)
    chosen = fitting(trial(**changes))
    seconds, host = timed(training.stepper(chosen)[0])
    peak = hardware.peak_memory(DEVICE)
    flops = cost.TRAINING_FACTOR * cost.forward_flops(chosen.architecture, chosen.dataset.resolution)
    rate = flops * chosen.batch_size / seconds
    words = [f"{1e3 * seconds:.2f} ms, batch {chosen.batch_size}", f"host {1e3 * host:.2f} ms"]
    if ON_GPU:
        words.append(f"{rate / 1e12:.1f} TFLOP/s, {rate / limit(chosen.precision):.0%} of its matrix rate")
    if name in baselines:
        words.append(f"{baselines[name] * chosen.batch_size / seconds:.2f} × as fast as the textbook loop")
    words.append(f"{peak / 1e9:.2f} GB")
    return Found("; ".join(words))


def timed(take: Callable[[int], object]) -> tuple[float, float]:
    """Seconds a step between two synchronisations, and those after which the host is free again."""

    def last(steps: int) -> tuple[float, float]:
        synchronize()
        began = time.perf_counter()
        for number in range(steps):
            take(number)
        queued = time.perf_counter() - began
        synchronize()
        return (time.perf_counter() - began) / steps, queued / steps

    last(3)
    once, _ = last(2)
    seconds, _ = last(max(2, min(500, round(SECONDS / once))))
    return seconds, statistics.median(last(2)[1] for _ in range(5))  # few, as a full queue lets the host wait


@cache
def limit(precision: str) -> float:
    """FLOP/s of products of matrices in a precision."""
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    with step.tensor_float_32() if precision == "tf32" else contextlib.nullcontext():
        return matrix_rate(dtype, DEVICE)
