"""The workers' logs of a trial in the storage: a file for each worker, written line by line while it runs."""

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator

from gahb.storage.base import Storage
from gahb.text import without_passwords

MOST = 64 << 20
"""Bytes of a worker's log."""

LINE = "%(asctime)s %(levelname)s %(message)s"


class _FileInStorage(logging.Handler):
    """Collects lines, which a thread writes, so that training does not wait for a slow storage."""

    def __init__(self, storage: Storage, name: str) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(logging.Formatter(LINE))
        self.storage, self.place, self.text = storage, name, ""
        self.news, self.ended = threading.Event(), False
        self.thread = threading.Thread(target=self._write, daemon=True)
        self.thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        self.text += without_passwords(self.format(record)) + "\n"
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
            with contextlib.suppress(OSError):  # the next line brings it along
                self.storage.write(self.place, self.text.encode())


@contextlib.contextmanager
def kept(storage: Storage, folder: str) -> Iterator[None]:
    """Write what gahb logs in this block to a file in the storage, `<folder>/log/<start>-<host>-<pid>.txt`."""
    began = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    handler = _FileInStorage(storage, f"{folder}/log/{began}-{socket.gethostname()}-{os.getpid()}.txt")
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
    """(worker, its log) in the order of their start."""
    found = []
    for name in storage.names(f"{folder}/log"):
        found.append((name.removesuffix(".txt"), storage.read(f"{folder}/log/{name}", MOST).decode(errors="replace")))
    return found
