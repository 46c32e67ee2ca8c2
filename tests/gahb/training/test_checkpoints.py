from pathlib import Path

import pytest
import torch

from gahb.storage.local import Folder
from gahb.training.checkpoints import Checkpoints


def test_the_newest_state_comes_back_and_the_last_two_stay(tmp_path: Path) -> None:
    checkpoints = Checkpoints(Folder(tmp_path), "trial")
    assert checkpoints.latest() is None
    for step in (5, 20, 100):
        checkpoints.save(step, {"w": torch.full((3, 2), float(step))}, {"history": [{"loss": 1.5}]})
    latest = checkpoints.latest()
    assert latest is not None
    step, tensors, facts = latest
    assert step == 100 and facts["history"] == [{"loss": 1.5}]
    assert torch.equal(tensors["w"], torch.full((3, 2), 100.0))
    assert [file.name for file in sorted((tmp_path / "trial").iterdir())] == [
        "step-000000020.safetensors",
        "step-000000100.safetensors",
    ]


@pytest.mark.parametrize("damage", [lambda b: b[:-7], lambda b: b[:4], lambda b: b"", lambda b: b"\xff" * 100])
def test_a_damaged_file_falls_back_to_the_one_before(damage, tmp_path: Path, caplog) -> None:  # type: ignore[no-untyped-def]
    checkpoints = Checkpoints(Folder(tmp_path))
    for step in (1, 2):
        checkpoints.save(step, {"w": torch.zeros(50)}, {})
    newest = tmp_path / "step-000000002.safetensors"
    newest.write_bytes(damage(newest.read_bytes()))
    latest = checkpoints.latest()
    assert latest is not None and latest[0] == 1
    assert "falling back" in caplog.text and newest.name in caplog.text


def test_a_pickle_is_not_executed(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self):  # type: ignore[no-untyped-def]
            return Path.touch, (tmp_path / "executed",)

    torch.save({"w": Payload()}, tmp_path / "step-000000001.safetensors")
    assert Checkpoints(Folder(tmp_path)).latest() is None
    assert not (tmp_path / "executed").exists()
