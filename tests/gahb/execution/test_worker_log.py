import logging
import os
from pathlib import Path

from gahb.execution import worker_log
from gahb.storage.local import Folder


def test_what_is_logged_in_the_block_is_kept(tmp_path: Path) -> None:
    storage, log = Folder(tmp_path), logging.getLogger("gahb.somewhere")
    log.info("before")
    with worker_log.kept(storage, "trials/abc"):
        log.info("first")
        log.warning("zweite Zeile, σ = %.1f", 0.5)
        logging.getLogger("other").warning("of somebody else")
    log.warning("after")
    ((worker, text),) = worker_log.texts(storage, "trials/abc")
    assert [line.split(" ", 2)[2] for line in text.splitlines()] == ["INFO first", "WARNING zweite Zeile, σ = 0.5"]
    assert worker.endswith(f"-{os.getpid()}")


def test_a_storage_that_cannot_be_written_to_holds_nobody_up(tmp_path: Path) -> None:
    (tmp_path / "trials").write_text("a file where a folder should be")
    with worker_log.kept(Folder(tmp_path), "trials/abc"):
        logging.getLogger("gahb").info("said")
    assert worker_log.texts(Folder(tmp_path), "trials/abc") == []
