import importlib.metadata
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gahb.housekeeping import doctor
from gahb.housekeeping.doctor import FAIL, OK, WARN, Finding
from gahb.storage.base import Storage
from gahb.storage.local import Folder
from tests.helpers import Ended, Place

Command = Callable[..., Ended]


def states(findings: list[Finding]) -> list[str]:
    return [finding.state for finding in findings]


def test_where_all_is_in_order_nothing_fails_and_nothing_is_left(
    ray_here: None, finished: Place, command: Command, tmp_path: Path
) -> None:
    before = {file.name for file in finished.store.files()}
    ended = command("gahb-sweep", "doctor", "--json", *finished.flags)
    checks = {row["what"]: row for row in ended.json["checks"]}
    assert ended.code == 0 and {row["state"] for row in checks.values()} <= {OK, WARN}
    assert checks.keys() >= {
        "python",
        "torch",
        "ray",
        "mlflow",
        "gpu",
        "compiler",
        "record",
        "storage",
        "clock",
        "images",
    }
    assert checks["torch"]["found"] == importlib.metadata.version("torch")
    assert "1 prepared; " in checks["images"]["found"] and "CPU" in checks["cluster"]["found"]
    assert {file.name for file in finished.store.files()} == before
    ended = command("gahb-sweep", "doctor")
    assert ended.code == 0 and "the first launch makes it" in ended.out and "none are prepared yet" in ended.out
    assert list(tmp_path.iterdir()) == []


def test_what_is_wrong_is_said_with_what_to_do(ray_here: None, copied: Place, command: Command) -> None:
    copied.execute("UPDATE alembic_version SET version_num = 'f5a4f2784254'")
    (images,) = copied.storage.glob("data/*/images-*.npy")
    content = bytearray(images.read_bytes())
    content[-1] ^= 1
    images.write_bytes(content)
    ended = command("gahb-sweep", "doctor", *copied.flags)
    failed = [line.split()[1] for line in ended.out.splitlines() if line.startswith(FAIL)]
    assert ended.code == 1 and failed == ["record", "images"]
    assert "mlflow db upgrade" in ended.out
    assert f"remove {images.parent} and launch its sweep again" in ended.out
    manifest = images.with_name("manifest.json")
    facts = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**facts, "recipe": {**facts["recipe"], "resolution": 17}}))
    (finding,) = doctor.images(copied.store, print)
    assert finding.state == FAIL and "another data set's" in finding.found


def test_images_in_a_bucket_are_not_fetched(storage: Storage, finished: Place) -> None:
    for file in finished.store.files("data"):
        storage.write(file.name, finished.store.read(file.name) if file.name.endswith(".json") else b"other bytes")
    (finding,) = doctor.images(storage, print)
    assert finding.state == (FAIL if isinstance(storage, Folder) else OK)
    assert states([*doctor.writable(storage), *doctor.clock(storage)]) == [OK, OK]
    assert not storage.files("doctor")


def test_a_clock_that_is_apart(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time
    for skew, state in ((0, OK), (-20, WARN), (20, WARN), (100, FAIL)):
        monkeypatch.setattr(time, "time", lambda skew=skew: now() + skew)
        (finding,) = doctor.clock(place.store)
        assert finding.state == state and bool(finding.cure) == (state != OK)


def test_a_storage_that_gives_a_lease_twice_or_is_full(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "FREE_BYTES", 1e18)
    assert states(list(doctor.writable(place.store))) == [WARN]

    class Careless(Folder):
        def create(self, name: str, content: bytes) -> bool:
            self.write(name, content)
            return True

    assert states(list(doctor.writable(Careless(place.storage)))) == [FAIL]


def test_versions_out_of_range_and_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    version = importlib.metadata.version
    found = {"ray": "3.0.1", "torch": "2.6.0+cu124"}
    monkeypatch.setattr(importlib.metadata, "version", lambda name: found.get(name) or version(name))
    findings = {finding.what: finding for finding in doctor.packages()}
    assert findings["torch"].state == OK and findings["ray"].state == FAIL
    assert findings["ray"].cure == "pip install 'ray[tune]<3,>=2.50'"
    monkeypatch.setenv("CXX", "no-such-compiler")
    (finding,) = doctor.compiler()
    assert finding.state == WARN and "no-such-compiler" in finding.cure


def test_a_gpu_is_named_with_its_driver_and_one_that_torch_cannot_use_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gahb.hardware.gpus", lambda: None)
    monkeypatch.setattr(doctor, "NVIDIA", tmp_path / "nothing")
    (finding,) = doctor.gpu()
    assert finding.state == OK and "no GPU: trials train on" in finding.found
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  575.57.08  Release\n")
    monkeypatch.setattr(doctor, "NVIDIA", tmp_path / "version")
    (finding,) = doctor.gpu()
    assert finding.state == FAIL and "driver 575.57.08" in finding.found and "build of torch" in finding.cure
    monkeypatch.setattr("gahb.hardware.gpus", lambda: ("NVIDIA H200", 2, 150 * 10**9))
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: True)
    (finding,) = doctor.gpu()
    assert finding.state == OK and finding.found.startswith("2 × NVIDIA H200, 150 GB, bfloat16; driver 575.57.08")
