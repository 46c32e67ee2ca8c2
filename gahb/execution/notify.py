"""A command that is told what becomes of a sweep: `launch --notify CMD`.

It runs each time that a trial has failed for good, and when the sweep has ended, however it did. On its standard input
it finds JSON:

    event     "failure", of a trial, or "end"
    sweep     its name in the record
    record    the record's address, and `link` to the sweep in MLflow's UI if it has a server
    reason    why the launch ended early, such as "interrupted"; null if it did not
    states    state → number of trials, and `failures`, the number of those that failed
    trials    of each trial, or of the one that failed: name, run_id, state, reason, metrics

What the command prints is discarded. If it fails, a line says so, and the sweep goes on.
"""

import contextlib
import json
import math
import shlex
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gahb.errors import UserError
from gahb.planning.plan import states_of
from gahb.storage.base import Storage
from gahb.text import without_passwords
from gahb.threads import beside
from gahb.tracking.record import Record
from gahb.tracking.run import Kind, Run, Tag

POLL_SECONDS = 5.0
"""Least time between two looks at the record."""

READING = 0.02
"""The largest share of the time in which the record is read."""

MOST_SECONDS = 60.0
"""How long the command may take."""


@contextlib.contextmanager
def told(
    command: str | None, sweep: str, record: Record, storage: Storage, say: Callable[[str], None]
) -> Iterator[None]:
    """Tell a command, if there is one, what becomes of a sweep while the block trains it, and when that has ended.

    Args:
        command: as it is typed; no shell reads it.
        sweep: its name in the record.
        record: where its trials are.
        storage: of the trials.
        say: takes a line if the command fails.

    Raises:
        UserError: there is no such command. Nothing has started.
    """
    if command is None:
        yield
        return
    notifier = Notifier(words_of(command), sweep, record, storage, say)
    reason = None
    try:
        with beside(notifier.watch()):
            yield
    except BaseException as error:
        reason = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error) or type(error).__name__
        raise
    finally:
        notifier.end(reason)


def words_of(command: str) -> list[str]:
    """The words of a command; UserError if there is no such command."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UserError(f"--notify {command}: {error}") from None
    if not words or not shutil.which(words[0]):
        raise UserError(f"--notify {command}: there is no command {words[0] if words else ''!r}")
    return words


class Notifier:
    """Tells a command of one sweep; arguments as for `told`, with the command's words. `watch` runs in another thread;
    after it, `end` is to be called."""

    def __init__(
        self, words: Sequence[str], sweep: str, record: Record, storage: Storage, say: Callable[[str], None]
    ) -> None:
        self.words, self.sweep, self.storage, self.say = words, sweep, storage, say
        self.record = Record(record.uri, storage.url)  # of that thread's own
        self.told = set(map(_attempt, self.failed()))

    def watch(self) -> Iterator[float]:
        """Look for trials that have failed, and tell of each once; yields the seconds until the next look."""
        pause = POLL_SECONDS
        while True:
            yield pause
            began = time.monotonic()
            with contextlib.suppress(UserError):  # the record does not answer, and will be asked again
                self.tell_failures()
            pause = max(POLL_SECONDS, (time.monotonic() - began) / READING)

    def tell_failures(self) -> None:
        """Tell of the trials that have failed since the last look."""
        for run in self.failed():
            if _attempt(run) not in self.told:
                self.told.add(_attempt(run))
                self.tell("failure", [run])

    def end(self, reason: str | None) -> None:
        """Tell of the failures of which nothing was told yet, and of the end."""
        try:
            self.tell_failures()
            self.tell("end", None, reason)
        except UserError as error:
            self.say(f"--notify: nothing could be told of the end: {error}")

    def failed(self) -> list[Run]:
        """The sweep's trials that have failed."""
        return [run for run in self.runs() if run.state == "failed"]

    def runs(self) -> list[Run]:
        """The sweep's trials; UserError if the record cannot be read."""
        return self.record.runs(Kind.TRIAL, sweep=self.sweep)

    def tell(self, event: str, runs: Sequence[Run] | None, reason: str | None = None) -> None:
        """Run the command with what has become of some trials, or of all."""
        every = self.runs()
        states = states_of(every, self.storage)
        server = self.record.uri.startswith("http")
        message = {
            "event": event,
            "sweep": self.sweep,
            "record": without_passwords(self.record.uri),
            "link": f"{self.record.uri.rstrip('/')}/{self.record.url(self.sweep)}" if server else None,
            "reason": reason,
            "states": dict(Counter(states.values())),
            "failures": sum(state == "failed" for state in states.values()),
            "trials": [_row(run, states[run.run_id]) for run in (every if runs is None else runs)],
        }
        text = json.dumps(message, ensure_ascii=False)
        try:
            subprocess.run(self.words, input=text.encode(), capture_output=True, check=True, timeout=MOST_SECONDS)
        except subprocess.CalledProcessError as error:
            last = error.stderr.decode(errors="replace").strip().splitlines()[-1:]
            self.say(": ".join([f"--notify {self.words[0]} ended with status {error.returncode}", *last]))
        except (OSError, subprocess.TimeoutExpired) as error:
            self.say(f"--notify: {error}")


def _attempt(run: Run) -> tuple[str, str]:
    """A trial, and the launch that trained it."""
    return run.run_id, run.tags.get(Tag.LAUNCH, "")


def _row(run: Run, state: str) -> dict[str, Any]:
    metrics = {key: value for key, value in run.psnrs.items() if math.isfinite(value)}
    return {"name": run.name, "run_id": run.run_id, "state": state, "reason": run.reason, "metrics": metrics}
