"""Rounds: the sweep with failures at random times, and the table of what became of it."""

import random
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chaos import sweep
from chaos.failures import Failure
from chaos.sweep import Comparison, Outcome
from chaos.world import World
from gahb.storage.base import storage_at
from gahb.tracking.record import Record

PATIENCE = 20
"""A round that takes so many times as long as the undisturbed sweep (and its failures) counts as failed."""


@dataclass(frozen=True)
class Round:
    """What happened in a round.

    Args:
        number: from 1; 0 is the undisturbed one.
        seed: of the failures and their times.
        injected: what went wrong and when, in seconds from the launch.
        launches: how many there were, and how many the failures call for.
        comparison: with the run on one machine.
        seconds: until the last trial had finished.
    """

    number: int
    seed: int
    injected: list[str]
    launches: int
    needed: int
    comparison: Comparison
    seconds: float

    @property
    def good(self) -> bool:
        return not any(vars(self.comparison).values())


def play(
    world: World, number: int, seed: int, drawn: Sequence[Failure], expected: Mapping[str, Outcome], usual: float
) -> Round:
    """Launch the sweep, let failures happen, launch it again where it has ended, and look at the record.

    Args:
        world: with a record that has none of these trials.
        number: of the round.
        seed: of times and places.
        drawn: the failures.
        expected: the trials as they ended on one machine.
        usual: seconds that the sweep takes undisturbed.
    """
    rng = random.Random(seed)
    times = sorted(rng.uniform(0.1, 0.7) * usual for _ in drawn)
    injected: list[str] = []
    say(f"round {number}, seed {seed}: {', '.join(failure.name for failure in drawn) or 'undisturbed'}")
    begun = time.monotonic()
    world.begin(f"round-{number}", on_folder=any(failure.on_folder for failure in drawn))
    world.launch()

    def disturb() -> None:
        for at, failure in zip(times, drawn, strict=True):
            time.sleep(max(0, begun + at - time.monotonic()))
            injected.append(f"{failure.name} {time.monotonic() - begun:.0f}")
            say(f"  {time.monotonic() - begun:5.1f} s {failure.name}")
            try:
                failure.inject(world, rng)
            except Exception:
                traceback.print_exc()
                injected.append(f"{failure.name} could not be put right")
            say(f"  {time.monotonic() - begun:5.1f} s {failure.name} is over")

    injector = threading.Thread(target=disturb, daemon=True)
    injector.start()
    deadline = begun + PATIENCE * usual + 4 * world.outage * len(drawn)
    while time.monotonic() < deadline:
        time.sleep(0.5)
        ended = [driver.poll() is not None for driver in world.drivers]
        if not all(ended) or injector.is_alive():
            continue
        if world.finished:
            break
        say(f"  {time.monotonic() - begun:5.1f} s not all have finished; another launch")
        time.sleep(2)
        world.launch()
    seconds = time.monotonic() - begun
    world.kill_drivers()
    injector.join()
    record = Record(world.server.uri, storage_at(world.storage).url)
    comparison = sweep.compare(expected, sweep.result(record))
    needed = 1 + sum(failure.launches for failure in drawn)
    sweep.forget(record)
    world.clean()
    return Round(number, seed, injected, world.launches, needed, comparison, seconds)


def say(line: str) -> None:
    """A line of talk, on stderr."""
    print(line, file=sys.stderr, flush=True)
