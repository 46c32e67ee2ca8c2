"""Retries with exponential backoff and jitter, for as long as a server, a disk or a network may take to come back.

The n-th pause is drawn evenly from

    [p/2, p],   p = min(2ⁿ, MAX_BACKOFF_SECONDS) seconds,   n = 0, 1, 2, …

so that many workers which lost the same server do not all return to it at once.
"""

import itertools
import logging
import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

Result = TypeVar("Result")

log = logging.getLogger(__name__)

MAX_BACKOFF_SECONDS = 30.0
"""The longest pause between two tries."""

PERMANENT = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)
"""What is wrong with a file and does not pass. Other OSErrors may: a full disk, a server that does not answer."""


def is_retryable(error: Exception) -> bool:
    """Whether an error may pass by itself."""
    return isinstance(error, OSError) and not isinstance(error, PERMANENT)


def pause(number: int, longest: float = MAX_BACKOFF_SECONDS) -> float:
    """Seconds to wait before a next try: the pause of a number, counted from 0, of which none exceeds the longest."""
    most = min(2.0 ** min(number, 30), longest)
    return random.uniform(most / 2, most)


def backoff() -> Iterator[float]:
    """Seconds to wait before each next try, without end."""
    return map(pause, itertools.count())


def with_retries(
    call: Callable[[], Result],
    is_retryable: Callable[[Exception], bool] = is_retryable,
    wait: Callable[[float], object] = time.sleep,
) -> Result:
    """What an idempotent call returns, tried again, with backoff, as long as it raises what is retryable.

    Args:
        call: to be made until it succeeds.
        is_retryable: whether an exception of the call may pass.
        wait: called with seconds between two tries; it may raise, which ends the tries.

    Raises:
        Exception: what the call raises and is not retryable.
    """
    for pause in backoff():
        try:
            return call()
        except Exception as error:
            if not is_retryable(error):
                raise
            log.warning("%s; trying again in %.1f s", (str(error).strip() or repr(error)).splitlines()[0], pause)
        wait(pause)
    raise AssertionError("unreachable")
