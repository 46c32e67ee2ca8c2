import threading
import time
from collections.abc import Iterator

import pytest

from gahb.threads import beside


def test_a_thread_goes_on_beside_a_block_and_no_longer() -> None:
    done, thrice, thread = list[float](), threading.Event(), list[threading.Thread]()

    def work() -> Iterator[float]:
        thread.append(threading.current_thread())
        while True:
            yield 0.02
            done.append(time.monotonic())
            if len(done) == 3:
                thrice.set()

    began = time.monotonic()
    with pytest.raises(ValueError), beside(work()):
        assert thrice.wait(30)
        assert thread[0].daemon and thread[0].is_alive() and thread[0] is not threading.current_thread()
        raise ValueError
    assert not thread[0].is_alive()
    assert all(later - earlier > 0.01 for earlier, later in zip([began, *done], done, strict=False))


def test_the_end_of_a_block_waits_for_what_is_being_done_and_for_no_more() -> None:
    leaving, steps = threading.Event(), list[str]()

    def work() -> Iterator[float]:
        assert leaving.wait(30)
        time.sleep(0.5)
        steps.append("done")
        yield 0.0
        steps.append("after the block")

    began = time.monotonic()
    with beside(work()):
        leaving.set()
    with beside(iter([3600.0])):
        pass
    assert steps == ["done"] and time.monotonic() - began < 60


def test_work_may_end_before_its_block() -> None:
    thread = list[threading.Thread]()

    def work() -> Iterator[float]:
        yield 0.0
        thread.append(threading.current_thread())

    with beside(work()):
        until = time.monotonic() + 30
        while not thread or thread[0].is_alive():
            assert time.monotonic() < until
            time.sleep(0.01)
