"""A function called in several processes, for work that holds the interpreter's lock, as Pillow does half of the time.

Each process is `python -m gahb.data.processes`. At its standard input it is given the function and then arguments,
pickled, until the input ends, and answers each with what the function returns or raises. Unlike those of
`multiprocessing` it neither forks, which threads do not survive, nor imports the caller's script.
"""

import contextlib
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

from gahb import child
from gahb.errors import UserError


@contextmanager
def processes(
    function: Callable[[Any], Any], count: int, reads: str, *, apart: bool = False
) -> Iterator[Callable[[Any], Any]]:
    """The function, to be called by as many threads at once as there shall be processes; of one there is none, and the
    call is made here.

    Args:
        function: of one argument, which can be pickled, as can be what it takes, returns and raises.
        count: of processes.
        reads: what the function reads, for messages.
        apart: whether one process, too, is another than this: what is read may end it.

    Raises:
        UserError: a process was ended, from outside or by what it read.
    """
    if count <= 1 and not apart:
        yield function
        return
    idle: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
    started: list[subprocess.Popen[bytes]] = []

    def call(argument: Any) -> Any:
        process = idle.get()
        try:
            return _ask(process, argument, reads)
        finally:
            idle.put(process)

    try:
        for _ in range(count):
            started.append(child.start("gahb.data.processes", stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            _send(started[-1], function)
            idle.put(started[-1])
        yield call
    finally:
        for process in started:
            process.kill()
            process.communicate()


def _ask(process: subprocess.Popen[bytes], argument: Any, reads: str) -> Any:
    try:
        _send(process, argument)
        returned, answer = pickle.load(process.stdout)  # type: ignore[arg-type]
    except (EOFError, OSError, pickle.UnpicklingError):
        status = process.wait()
        if ended := child.how_it_ended(status):
            raise UserError(f"{reads} {ended}") from None
        raise UserError(f"a process that prepares images ended with status {status}; try again") from None
    if not returned:
        raise answer
    return answer


def _send(process: subprocess.Popen[bytes], content: Any) -> None:
    stream = process.stdin
    assert stream is not None
    pickle.dump(content, stream)
    stream.flush()


def _serve() -> None:
    answers, sys.stdout = sys.stdout.buffer, sys.stderr
    with contextlib.suppress(EOFError, pickle.UnpicklingError):  # who asks has ended, perhaps before it had asked
        function = pickle.load(sys.stdin.buffer)
        while True:
            argument = pickle.load(sys.stdin.buffer)
            try:
                answer = (True, function(argument))
            except Exception as error:
                answer = (False, error)
            pickle.dump(answer, answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()


if __name__ == "__main__":
    _serve()
