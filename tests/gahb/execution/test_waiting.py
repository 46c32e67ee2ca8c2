import time

import pytest

from gahb.execution import waiting
from gahb.planning.placement import KIND


def test_what_work_waits_for_is_said_until_it_begins(ray_here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(waiting, "LATER_SECONDS", 0.01)
    said = list[str]()

    def wait_for(beginning: str) -> None:
        until = time.monotonic() + 30
        while not any(line.startswith(beginning) for line in said):
            assert time.monotonic() < until, said
            time.sleep(0.01)

    with waiting.waiting({"CPU": 1, "GPU": 1, f"{KIND}L4": 0.001, "memory": 3.2e9}, said.append) as begin:
        wait_for("waiting for a node with 1 CPU, 1 GPU (L4) and 3.2 GB, ")
        begin()
        wait_for("it came after ")
    with waiting.waiting({"CPU": 1}, said.append):
        time.sleep(0.1)
    assert len(said) == 2, "a node with one CPU lives"
    monkeypatch.setattr(waiting, "PATIENCE_SECONDS", 0.01)
    with waiting.waiting({"CPU": 1}, said.append):
        wait_for("waiting for 1 free CPU, ")
