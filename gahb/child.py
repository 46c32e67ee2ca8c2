"""Processes of our own that do one thing apart from their caller, which they cannot take with them when they end."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE)
"""What ends a process that reads a damaged file in unsafe code."""


def start(
    module: str, *words: str, variables: Mapping[str, str] | None = None, **streams: Any
) -> subprocess.Popen[bytes]:
    """`python -m module words`, with this process's path for imports, in a group of its own: an interrupt is for the
    caller, who ends it. `variables` join those of the environment, `streams` are those of Popen."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **(variables or {})}
    command = [sys.executable, "-P", "-m", module, *words]
    return subprocess.Popen(command, env=environment, process_group=0, **streams)


def interrupt(process: subprocess.Popen[bytes], patience: float) -> None:
    """End a process as Ctrl-C does, or, after so many seconds, at once."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """A block in the main thread that the first Ctrl-C does not end before its own end; the second does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came = list[int]()

    def wait(number: int, frame: FrameType | None) -> None:
        came.append(number)
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, wait)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt


def how_it_ended(status: int) -> str | None:
    """What is to be said of a file whose reader ended with a status; None if that says nothing of the file."""
    if -status in CRASHES:
        return f"ended the process that read it (signal {-status}): it is damaged or hostile"
    return None


def limit(memory: int, cpu_seconds: int, file_size: int) -> None:
    """Bound what this process may take from here on: bytes of memory (on Linux), seconds of all cores together, bytes
    of a file."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    used = resource.getrusage(resource.RUSAGE_SELF)
    most = int(used.ru_utime + used.ru_stime) + cpu_seconds
    resource.setrlimit(resource.RLIMIT_CPU, (most, most))
    if sys.platform == "linux":
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + memory, mapped + memory))
