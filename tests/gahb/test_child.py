import os
import signal
import subprocess
import sys

import pytest

from gahb import child


def interrupt_this_process() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_an_interruption_waits_for_the_end_of_a_block_and_a_second_does_not() -> None:
    before, reached = signal.getsignal(signal.SIGINT), []
    with pytest.raises(KeyboardInterrupt), child.uninterrupted():
        interrupt_this_process()
        reached.append("the end")
    assert reached == ["the end"] and signal.getsignal(signal.SIGINT) is before
    with pytest.raises(KeyboardInterrupt), child.uninterrupted():
        interrupt_this_process()
        interrupt_this_process()
        reached.append("more")
    assert reached == ["the end"] and signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(("deaf", "status"), [(False, 3), (True, -signal.SIGKILL)])
def test_a_child_may_end_as_it_likes_when_interrupted_but_has_to_end(deaf: bool, status: int) -> None:
    code = (
        "import signal, sys, time\n"
        f"signal.signal(signal.SIGINT, {'signal.SIG_IGN' if deaf else 'lambda *_: sys.exit(3)'})\n"
        "print(flush=True)\n"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"\n"
        child.interrupt(process, patience=0.5 if deaf else 30)
        assert process.returncode == status
