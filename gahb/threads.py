"""What a thread does beside a block, again and again: a heartbeat, a look at the record, a drawing."""

import contextlib
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def beside(work: Iterator[float]) -> Iterator[None]:
    """While the block lasts, a thread runs a generator, which yields the seconds that it waits before it goes on. The
    end of the block ends the wait, and the generator there: none of it runs after the block."""
    ended = threading.Event()

    def run() -> None:
        for seconds in work:
            if ended.wait(seconds):
                return

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
