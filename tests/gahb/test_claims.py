import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gahb import claims
from gahb.storage import Folder


def test_a_trial_is_in_the_hands_of_one_living_launch(tmp_path: Path) -> None:
    storage = Folder(tmp_path)
    with claims.sign_of_life(storage) as first, claims.sign_of_life(storage) as second:
        assert claims.alive(storage, first) and claims.alive(storage, second)
        assert claims.take(storage, "abc", first)
        assert not claims.take(storage, "abc", second) and claims.take(storage, "def", second)
    assert not claims.alive(storage, first)
    with claims.sign_of_life(storage) as third:
        assert claims.take(storage, "abc", third) and not claims.take(storage, "abc", "another")


def test_a_process_that_has_died_is_not_alive(tmp_path: Path) -> None:
    script = "import sys; from pathlib import Path; from gahb import claims; from gahb.storage import Folder\n"
    script += "with claims.sign_of_life(Folder(Path(sys.argv[1]))) as i: print(i, flush=True); sys.stdin.read()"
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout and child.stdin
    launch_id = child.stdout.readline().strip()
    assert claims.alive(Folder(tmp_path), launch_id)
    child.kill()
    child.wait()
    child.stdin.close()
    child.stdout.close()
    assert not claims.alive(Folder(tmp_path), launch_id)


def test_a_launch_elsewhere_is_waited_for_until_it_shows_life_or_is_taken_for_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, said = Folder(tmp_path), list[str]()
    storage.write("launches/abc", json.dumps({"host": "elsewhere", "pid": 1}).encode())
    assert claims.alive(storage, "abc")
    monkeypatch.setattr(claims, "PATIENCE", 1.5)
    began = time.monotonic()
    assert claims.wait_for_signs(["abc"], storage, said.append) and len(said) == 1
    assert time.monotonic() - began > 1 and not claims.alive(storage, "abc")
    assert not claims.wait_for_signs(["gone"], storage, said.append)
    storage.write("launches/here", json.dumps({"host": os.uname().nodename, "pid": os.getpid()}).encode())
    assert not claims.wait_for_signs(["here"], storage, said.append) and len(said) == 1
