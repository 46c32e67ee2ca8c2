import errno
import itertools
from pathlib import Path

import pytest

from gahb.storage.retry import MAX_BACKOFF_SECONDS, backoff, is_retryable, with_retries


def test_pauses_double_up_to_the_longest() -> None:
    assert list(itertools.islice(backoff(), 7)) == [1, 2, 4, 8, 16, MAX_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS]


def test_what_passes_is_tried_again_and_the_rest_is_raised() -> None:
    waited: list[float] = []
    answers = iter([OSError(errno.ENOSPC, "No space left on device"), TimeoutError("no answer"), "written"])

    def call() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert with_retries(call, wait=waited.append) == "written" and waited == [1, 2]
    with pytest.raises(FileNotFoundError):
        with_retries(lambda: Path("/no/such/file").read_text(), wait=waited.append)
    assert waited == [1, 2]


def test_waiting_may_end() -> None:
    def stop(seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        with_retries(lambda: (_ for _ in ()).throw(OSError("down")), wait=stop)


def test_only_what_may_pass_passes() -> None:
    assert is_retryable(OSError(errno.EIO, "Input/output error")) and is_retryable(ConnectionError())
    assert (
        not is_retryable(PermissionError())
        and not is_retryable(NotADirectoryError())
        and not is_retryable(ValueError())
    )
