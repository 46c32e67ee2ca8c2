"""What a training holds of the GPU's memory against what `cost.memory` predicts, at every level of activation
checkpointing, and what happens where it gets too little: it goes on at the next level with the same bits.
"""

from dataclasses import replace
from functools import partial
from typing import Any

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
    yield "a training that gets too little memory", too_little


def against_prediction(flat: dict[str, Any], precision: str, level: Level) -> Found:
    chosen = fitting(trial(**flat, precision=precision), level)
    peak, predicted = peak_memory(chosen, level), cost.memory(chosen, level)
    met = 1 / OFF <= peak / predicted <= OFF if ON_GPU else None
    found = f"{peak / predicted:.2f} of the predicted {predicted / 1e9:.2f} GB, batch {chosen.batch_size}"
    return Found(found, f"{1 / OFF:.2f} … {OFF:g}", met)


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
        take, net = training.stepper(trial(architecture=name, resolution=40, batch_size=32), level)
        for number in range(4):
            take(number)
        digests.append(training.digest(net))
    return equal(digests)


def too_little() -> Found:
    if not ON_GPU:
        raise Skipped("no limit is set on the memory of a CPU")
    chosen = trial(resolution=40)
    chosen = replace(chosen, images=20 * chosen.batch_size)
    said: list[str] = []
    whole = training.digest(training.train(chosen).denoiser)
    limit = TOO_LITTLE * peak_memory(chosen, "none") / hardware.memory(DEVICE)
    training.forget()
    with training.memory_fraction(limit):
        resumed = training.digest(training.train(chosen, options=loop.Options(say=said.append)).denoiser)
    met = bool(said) and whole == resumed
    return Found(
        f"{whole}, {resumed}; {'; '.join(said) or 'no level was changed'}", "another level, the same bits", met
    )
