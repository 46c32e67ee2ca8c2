"""What a training holds of the GPU's memory against what `cost.memory` predicts, at every level of activation
checkpointing, and what happens where it gets too little: it goes on at the next level with the same bits.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from benchmarks.gpu import training
from benchmarks.gpu.checks import (
    ARCHITECTURES,
    DEVICE,
    NETWORKS,
    ON_GPU,
    Checks,
    Found,
    Skipped,
    equal,
    fitting,
    synchronize,
    trial,
)
from gahb import hardware
from gahb.models.activation_checkpointing import LEVELS, Level
from gahb.training import cost, loop
from gahb.trial import Trial

OFF = 1.5
"""The factor by which a prediction may be off."""

TOO_LITTLE = 0.75
"""Of what a training takes, in the check of what happens then."""


def checks() -> Checks:
    for precision in ("float32", "bfloat16") if ON_GPU else ("float32",):
        for name, flat in NETWORKS.items():
            for level in LEVELS:
                yield f"{name}, {precision}, level {level}: peak", partial(against_prediction, flat, precision, level)
    for name in ARCHITECTURES:
        yield f"{name}: weights after steps at each level", partial(at_every_level, name)
    yield "training with too little memory, by a limit", partial(too_little, True)
    yield "training with too little memory, as others hold it", partial(too_little, False)


def against_prediction(flat: dict[str, Any], precision: str, level: Level) -> Found:
    chosen = fitting(trial(**flat, precision=precision), level)
    if cost.host_memory(chosen, level) > hardware.memory(torch.device("cpu")) / 2:
        raise Skipped(f"it takes {cost.host_memory(chosen, level) / 1e9:.0f} GB of the host's memory")
    peak, predicted = peak_memory(chosen, level), cost.memory(chosen, level, on_gpu=ON_GPU)
    if not ON_GPU:
        return Found(f"{peak / 1e9:.2f} GB of the whole process")
    found = f"{peak / predicted:.2f} of the predicted {predicted / 1e9:.2f} GB, batch {chosen.batch_size}"
    return Found(found, f"{1 / OFF:.2f} … {OFF:g}", 1 / OFF <= peak / predicted <= OFF)


def peak_memory(trial: Trial, level: Level) -> int:
    """The most bytes that some steps hold; of a dry run, those of the whole process."""
    training.forget()
    hardware.reset_peak(DEVICE)
    take, _ = training.stepper(trial, level)
    for number in range(3):
        take(number)
    synchronize()
    return hardware.peak_memory(DEVICE)


def at_every_level(name: str) -> Found:
    digests = []
    for level in LEVELS:
        take, net = training.stepper(trial(architecture=name, batch_size=64), level)
        for number in range(4):
            take(number)
        digests.append(training.digest(net))
    return equal(digests)


def too_little(known: bool) -> Found:
    """Train with a part of what it takes: by a limit on the process, which the prediction knows, or as something else
    holds the rest, which it does not."""
    if not ON_GPU:
        raise Skipped("no limit is set on the memory of a CPU")
    chosen = trial(resolution=40)
    chosen = replace(chosen, images=20 * chosen.batch_size)
    whole = training.digest(training.train(chosen).denoiser)
    given = int(TOO_LITTLE * peak_memory(chosen, "none"))
    training.forget()
    said: list[str] = []
    with training.memory_fraction(given / hardware.memory(DEVICE)) if known else ballast(given):
        resumed = training.digest(training.train(chosen, options=loop.Options(say=said.append)).denoiser)
    met = whole == resumed and len(said) > 0 and (known or "out of memory" in said[0])
    return Found(
        f"{whole}, {resumed}; {'; '.join(said) or 'no level was changed'}", "another level, the same bits", met
    )


@contextlib.contextmanager
def ballast(left: int) -> Iterator[None]:
    """Within the block no more than so many bytes of the GPU are free."""
    free, _ = torch.cuda.mem_get_info()
    held = torch.empty(max(0, free - left), dtype=torch.uint8, device=DEVICE)
    yield
    del held
    training.forget()
