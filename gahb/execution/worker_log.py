"""What workers say of a trial, kept in the storage: one text for each worker that had it in hand."""

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator

from gahb.storage.base import Storage

LINE = "%(asctime)s %(levelname)s %(message)s"


class _Text(logging.Handler):
    """Collects lines, and a thread writes them, so that a slow storage holds nobody up."""

    def __init__(self, storage: Storage, name: str) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(logging.Formatter(LINE))
        self.storage, self.place, self.text = storage, name, ""
        self.news, self.ended = threading.Event(), False
        self.thread = threading.Thread(target=self._write, daemon=True)
        self.thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        self.text += self.format(record) + "\n"
        self.news.set()

    def end(self) -> None:
        self.ended = True
        self.news.set()
        self.thread.join()

    def _write(self) -> None:
        last = False
        while not last:
            self.news.wait()
            self.news.clear()
            last = self.ended
            with contextlib.suppress(OSError):  # with the next line then
                self.storage.write(self.place, self.text.encode())


@contextlib.contextmanager
def kept(storage: Storage, folder: str) -> Iterator[None]:
    """Keep what gahb logs in this block, line by line, as a file in the storage."""
    began = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    handler = _Text(storage, f"{folder}/log/{began}-{socket.gethostname()}-{os.getpid()}.txt")
    logger = logging.getLogger("gahb")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
        handler.end()


def texts(storage: Storage, folder: str) -> list[tuple[str, str]]:
    """(worker, what it said) in the order of their beginning."""
    names = storage.names(f"{folder}/log")
    return [(name.removesuffix(".txt"), storage.read(f"{folder}/log/{name}").decode()) for name in names]
