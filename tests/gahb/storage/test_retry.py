import errno
import itertools
from pathlib import Path

import pytest

from gahb.storage.retry import MAX_BACKOFF_SECONDS, backoff, is_retryable, pause, with_retries

LONGEST = [1, 2, 4, 8, 16, MAX_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS]


def test_pauses_double_up_to_the_longest_and_no_two_are_the_same() -> None:
    drawn = [list(itertools.islice(backoff(), len(LONGEST))) for _ in range(200)]
    for longest, pauses in zip(LONGEST, zip(*drawn, strict=True), strict=True):
        assert longest / 2 <= min(pauses) < 0.6 * longest and 0.9 * longest < max(pauses) <= longest
        assert len(set(pauses)) == len(drawn)


def test_a_pause_has_a_longest_of_its_own_and_its_number_no_end() -> None:
    drawn = [pause(10_000, 60) for _ in range(200)]
    assert 30 <= min(drawn) < 36 and 54 < max(drawn) <= 60


def test_what_is_retryable_is_tried_again_and_the_rest_is_raised() -> None:
    waited: list[float] = []
    answers = iter([OSError(errno.ENOSPC, "No space left on device"), TimeoutError(), "written"])

    def call() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert with_retries(call, wait=waited.append) == "written"
    first, second = waited
    assert 0.5 <= first <= 1 <= second <= 2
    with pytest.raises(FileNotFoundError):
        with_retries(lambda: Path("/no/such/file").read_text(), wait=waited.append)
    assert waited == [first, second]


def test_waiting_may_end() -> None:
    def stop(seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        with_retries(lambda: (_ for _ in ()).throw(OSError("down")), wait=stop)


def test_a_file_s_own_fault_is_not_retryable() -> None:
    assert is_retryable(OSError(errno.EIO, "Input/output error")) and is_retryable(ConnectionError())
    for error in (PermissionError(), NotADirectoryError(), ValueError()):
        assert not is_retryable(error)
