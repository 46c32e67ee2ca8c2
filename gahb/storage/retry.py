"""Waiting for a server, a disk or a network to come back: a worker tries again until it does, however long it takes."""

import logging
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

Result = TypeVar("Result")

log = logging.getLogger(__name__)

MAX_BACKOFF_SECONDS = 30.0
"""Seconds between two tries, at most."""

PERMANENT = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)
"""What is wrong with a file and does not pass. Other OSErrors may: a full disk, a server that does not answer."""


def is_retryable(error: Exception) -> bool:
    """Whether an error may pass by itself."""
    return isinstance(error, OSError) and not isinstance(error, PERMANENT)


def backoff() -> Iterator[float]:
    """Seconds before each next try: 1, 2, 4, … MAX_BACKOFF_SECONDS."""
    pause = 1.0
    while True:
        yield pause
        pause = min(2 * pause, MAX_BACKOFF_SECONDS)


def with_retries(
    call: Callable[[], Result],
    is_retryable: Callable[[Exception], bool] = is_retryable,
    wait: Callable[[float], object] = time.sleep,
) -> Result:
    """What a call returns, tried again as long as it raises what may pass. Between tries it waits, which may raise too.

    Raises:
        Exception: what the call raises and will not pass.
    """
    for pause in backoff():
        try:
            return call()
        except Exception as error:
            if not is_retryable(error):
                raise
            log.warning("%s; trying again in %.0f s", str(error).strip().splitlines()[0], pause)
        wait(pause)
    raise AssertionError("unreachable")
