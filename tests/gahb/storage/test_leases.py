import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gahb.storage import leases
from gahb.storage.local import Folder


def test_a_trial_s_lease_is_held_by_one_living_launch(tmp_path: Path) -> None:
    storage = Folder(tmp_path)
    with leases.heartbeat(storage) as first, leases.heartbeat(storage) as second:
        assert leases.alive(storage, first) and leases.alive(storage, second)
        assert leases.acquire(storage, "abc", first)
        assert not leases.acquire(storage, "abc", second) and leases.acquire(storage, "def", second)
    assert not leases.alive(storage, first)
    with leases.heartbeat(storage) as third:
        assert leases.acquire(storage, "abc", third) and not leases.acquire(storage, "abc", "another")
    assert storage.names("leases/abc") == ["000000", "000001"] and storage.names("leases/def") == ["000000"]


def test_a_lease_that_an_earlier_version_wrote_is_respected_and_numbering_goes_on(tmp_path: Path) -> None:
    storage = Folder(tmp_path)
    with leases.heartbeat(storage) as old, leases.heartbeat(storage) as new:
        storage.write("claims/abc/000000", b"long ended")
        storage.write("claims/abc/000001", old.encode())
        assert not leases.acquire(storage, "abc", new)
    with leases.heartbeat(storage) as new, leases.heartbeat(storage) as another:
        assert leases.acquire(storage, "abc", new) and not leases.acquire(storage, "abc", another)
    assert storage.names("leases/abc") == ["000002"] and storage.names("claims/abc") == ["000000", "000001"]


def test_a_lease_that_is_released_goes_with_those_before_it_and_leaves_who_meets_that_without(tmp_path: Path) -> None:
    storage = Folder(tmp_path)
    storage.write("claims/abc/000000", b"long ended")
    with leases.heartbeat(storage) as first, leases.heartbeat(storage) as second:
        assert leases.acquire(storage, "abc", first)

        class Released(Folder):
            """A storage in which the lease goes between the list and the look."""

            def names(self, folder: str) -> list[str]:
                found = super().names(folder)
                if folder.startswith("leases/"):
                    leases.release(storage, "abc")
                return found

        assert not leases.acquire(Released(tmp_path), "abc", second)
        assert storage.files("leases") == storage.files("claims") == []
        assert leases.acquire(storage, "abc", second)


def test_a_process_that_has_died_is_not_alive(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from gahb.storage import leases; from gahb.storage.local import Folder\n"
    )
    script += "with leases.heartbeat(Folder(Path(sys.argv[1]))) as i: print(i, flush=True); sys.stdin.read()"
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout and child.stdin
    launch_id = child.stdout.readline().strip()
    assert leases.alive(Folder(tmp_path), launch_id)
    child.kill()
    child.wait()
    child.stdin.close()
    child.stdout.close()
    assert not leases.alive(Folder(tmp_path), launch_id)


def test_a_launch_elsewhere_is_waited_for_until_its_heartbeat_or_its_lease_s_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, said = Folder(tmp_path), list[str]()
    storage.write("launches/abc", json.dumps({"host": "elsewhere", "pid": 1}).encode())
    assert leases.alive(storage, "abc")
    monkeypatch.setattr(leases, "LEASE_TTL", 1.5)
    began = time.monotonic()
    assert leases.wait_for_heartbeats(["abc"], storage, said.append) and len(said) == 1
    assert time.monotonic() - began > 1 and not leases.alive(storage, "abc")
    assert not leases.wait_for_heartbeats(["gone"], storage, said.append)
    storage.write("launches/here", json.dumps({"host": os.uname().nodename, "pid": os.getpid()}).encode())
    assert not leases.wait_for_heartbeats(["here"], storage, said.append) and len(said) == 1
