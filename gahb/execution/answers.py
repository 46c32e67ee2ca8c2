"""Answers to a sweep as they come: each pair as soon as both of its trials are finished, and the report at the end.

What trains and what analyses meet at the record, so the command `gahb-analyze` gives the answers, as a child process.
Beside trials it takes what they leave free: one pair at a time, on one thread that runs when a core is idle (where the
system can, or else with the lowest priority), and on no GPU. Where the trials have ended, the report compares the pairs
that are left, with all that they left behind.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gahb import child
from gahb.denoising.sampler import SAMPLES, SEED, Sampler
from gahb.errors import UserError
from gahb.execution.code import write_plugins
from gahb.execution.ray_jobs import APPS
from gahb.grids import differing, pair_name
from gahb.storage.base import Storage
from gahb.threads import beside
from gahb.tracking import lookup
from gahb.tracking.record import Record
from gahb.tracking.run import Kind, Run
from gahb.typed import command_line

SETTINGS = {"samples": SAMPLES, "seed": SEED, **asdict(Sampler())}
"""With which `pair` and `pairs` compare, unless told otherwise."""

BESIDE = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
"""Environment variables of a child beside trials."""

POLL_SECONDS = 2.0

READING = 0.02
"""The largest share of the time in which the record is read."""

PATIENCE_SECONDS = 30.0
"""How long a child that is interrupted may take to end."""


@contextlib.contextmanager
def as_they_come(
    sweep: str, record: Record, storage: Storage, address: str | None, say: Callable[[str], None]
) -> Iterator[None]:
    """Compare the pairs of a sweep while the block trains it, and write the report when the block has ended. If it ends
    in an error or an interruption, so does the child at work, and there is no report.

    Args:
        sweep: its name in the record.
        record: where the trials are, and the answers go.
        storage: of the trials.
        address: a Ray cluster for the report; this machine alone if left out.
        say: takes a line for each pair, and for each child that failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        answers = Answers(sweep, record, storage, say, write_plugins(Path(folder)))
        with beside(answers.compare()), contextlib.closing(answers):
            yield
        answers.report(address)


class Answers:
    """The answers to one sweep; arguments as for `as_they_come`, and the words that load plugin files. `compare` runs
    in another thread until `close`."""

    def __init__(
        self, sweep: str, record: Record, storage: Storage, say: Callable[[str], None], plugins: Sequence[str] = ()
    ) -> None:
        self.sweep, self.say, self.plugins = sweep, say, plugins
        self.record = Record(record.uri, storage.url)  # of that thread's own
        self.places = places(record.uri, storage.uri)
        self.tried = set[tuple[str, str]]()
        self.lock = threading.Lock()
        self.process: subprocess.Popen[bytes] | None = None
        self.ended = False

    def compare(self) -> Iterator[float]:
        """Compare one pair after the other as their trials finish; yields the seconds until the next look."""
        yield POLL_SECONDS
        while not self.ended:
            began, pair = time.monotonic(), None
            with contextlib.suppress(UserError):  # the record does not answer, and will be asked again
                pair = self.next_pair()
            pause = max(POLL_SECONDS, (time.monotonic() - began) / READING)
            if pair:
                name, a, b = pair
                self.tried.add((a.run_id, b.run_id))
                self.compare_pair(name, a, b)
                pause = 0.0
            yield pause

    def next_pair(self) -> tuple[str, Run, Run] | None:
        """A pair that is finished and neither answered nor tried, with its name; UserError if the record cannot be
        read."""
        runs = self.record.runs(Kind.TRIAL, sweep=self.sweep)
        pairs = lookup.pairs([run for run in runs if run.state == "finished"])
        new = [(a, b) for a, b in pairs if (a.run_id, b.run_id) not in self.tried]
        asked = self.record.runs("pair") if new else []
        for a, b in new:
            if not lookup.answer(asked, (a, b), SETTINGS):
                return pair_name(a.trial, differing(run.trial for run in runs)), a, b
        return None

    def compare_pair(self, name: str, a: Run, b: Run) -> None:
        """Compare one pair, and say what was found, or why nothing was."""
        with self.lock:
            if self.ended:
                return
            words = ("pair", a.run_id, b.run_id, "--json", *self.plugins)
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            self.process = start(*words, variables={**self.places, **BESIDE}, **pipes)
            step_aside(self.process.pid)
        out, err = self.process.communicate()
        if self.process.returncode == 0:
            self.say(f"pair {name}: {in_words(json.loads(out))}")
        elif not self.ended:
            self.say(f"pair {name} could not be compared: {reason(self.process, err)}")

    def close(self) -> None:
        """Interrupt the comparison at work, if there is one, and begin no other."""
        with self.lock:
            self.ended = True
        if self.process:
            child.interrupt(self.process, PATIENCE_SECONDS)

    def report(self, address: str | None) -> None:
        """Write the report, whose talk is passed on."""
        words = ["report", self.sweep, *(["--address", address] if address else []), *self.plugins]
        process = start(*words, variables=self.places, stdout=2)
        try:
            status = process.wait()
        except BaseException:
            child.interrupt(process, PATIENCE_SECONDS)
            raise
        if status:
            ask = command_line("gahb-analyze", "report", self.sweep)
            self.say(f"there is no report; ask for it with: {ask}")


def start(*words: str, variables: Mapping[str, str], **streams: Any) -> subprocess.Popen[bytes]:
    """`gahb-analyze` with these words in a process of its own, as what trains may not import what analyses; see
    `child.start`."""
    return child.start(APPS["gahb-analyze"], *words, variables=variables, stdin=subprocess.DEVNULL, **streams)


def places(record: str, storage: str) -> dict[str, str]:
    """The environment variables that say where record and storage are: others may read a command line, and the record
    may have a password."""
    return {"MLFLOW_TRACKING_URI": record, "GAHB_STORAGE": storage}


def reason(process: subprocess.Popen[bytes], err: bytes) -> str:
    """Why a process failed, in one line, from what it left on stderr."""
    lines = err.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"it ended with status {process.returncode}"


def in_words(summary: Mapping[str, Any]) -> str:
    """What the comparison of a pair found, from what `gahb-analyze pair --json` prints of it."""
    if summary["diverged"] == summary["samples"]:
        return "all samples diverged"
    return ", ".join(f"{key} {summary[key]['mean']:.2f}" for key in ("cosine", "excess"))


def step_aside(pid: int) -> None:
    """Let a process run only where no other wants to, if the system can, or else with the lowest priority."""
    os.setpriority(os.PRIO_PROCESS, pid, 19)
    if sys.platform == "linux":  # Ray's workers have priorities near the lowest themselves
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
