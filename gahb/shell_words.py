"""How a command answers a shell that asks for completion, whatever happens: with words, or else in silence.

bash takes `=` for the end of a word, and typer does not know: it is asked for `architecture=u`, and bash gets what may
stand in place of `u`.
"""

import contextlib
import io
import itertools
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

PATIENCE_SECONDS = 5
"""How long a person waits for an answer, of a record for instance."""


def asked(name: str) -> bool:
    """Whether a shell asks the command of that name for completion."""
    return f"_{name.replace('-', '_').upper()}_COMPLETE" in os.environ


def answer(complete: Callable[[], Any]) -> None:
    """Print what `complete` prints for the shell, and nothing else; the process shall end then."""
    known = _joined() if "COMP_WORDS" in os.environ else ""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    signal.signal(signal.SIGALRM, _late)
    signal.alarm(PATIENCE_SECONDS)
    with contextlib.suppress(Exception, SystemExit), contextlib.redirect_stdout(io.StringIO()) as out:
        complete()
    signal.alarm(0)
    for line in out.getvalue().splitlines():
        print(line.removeprefix(known))


def _joined() -> str:
    """Put bash's words together that an `=` has parted; what of the last one stays as it is."""
    words, index = os.environ["COMP_WORDS"].split("\n"), int(os.environ["COMP_CWORD"])
    joined = [words[0]]
    for before, word in itertools.pairwise(words[: index + 1]):
        if joined[1:] and "=" in (before, word):
            joined[-1] += word
        else:
            joined.append(word)
    os.environ.update(COMP_WORDS="\n".join(joined), COMP_CWORD=str(len(joined) - 1))
    key, equals, _ = joined[-1].partition("=")
    return key + equals if equals else ""


def _late(*_: object) -> None:
    raise TimeoutError
