import os
import threading
from pathlib import Path

import numpy as np
import pytest

from gahb.data.c_alpha import CAlpha
from gahb.data.dataset import Dataset, Prepared, prepare
from gahb.errors import UserError
from gahb.storage.base import Storage, storage_at, storage_here
from gahb.storage.local import Folder
from gahb.training.checkpoints import Checkpoints


def test_what_is_written_is_read(storage: Storage) -> None:
    assert storage.names("a/b") == [] and storage.modified("a/b/x") is None
    with pytest.raises(FileNotFoundError):
        storage.read("a/b/x")
    storage.write("a/b/x", b"one")
    storage.write("a/b/x", b"two")
    storage.write("a/b/y", b"")
    storage.write("a/b/deeper/z", b"three")
    assert storage.read("a/b/x") == b"two" and storage.names("a/b") == ["x", "y"]
    assert storage_at(storage.uri).read("a/b/deeper/z") == b"three"
    assert (storage.modified("a/b/x") or 0) > 1.7e9
    files = storage.files("a/b")
    assert [(file.name, file.bytes) for file in files] == [("a/b/deeper/z", 5), ("a/b/x", 3), ("a/b/y", 0)]
    assert storage.files() == files and storage.files("a/bc") == []
    assert files[1].modified == pytest.approx(storage.modified("a/b/x"), abs=1)
    storage.clear("a/b", ["a/b/deeper/z"])
    assert [file.name for file in storage.files()] == ["a/b/x", "a/b/y"]
    storage.remove("a/b/x")
    storage.remove("a/b/x")
    assert storage.names("a/b") == ["y"]


def test_clearing_follows_no_link_and_leaves_no_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/x").write_text("precious")
    storage = Folder(tmp_path / "storage")
    for name in ("t/a/x", "t/b/x", "t/b/y"):
        storage.write(name, b"")
    (storage.path / "t/link").symlink_to(tmp_path / "mine")
    assert [file.name for file in storage.files("t")] == ["t/a/x", "t/b/x", "t/b/y"]
    storage.clear("t", ["t/a/x", "t/b/x", "t/link/x"])
    assert (tmp_path / "mine/x").exists() and [file.name for file in storage.files()] == ["t/b/y"]
    assert not (storage.path / "t/a").exists()
    (storage.path / "t/link").unlink()
    storage.clear("t", ["t/b/y"])
    assert list(storage.path.iterdir()) == []


def test_of_many_that_create_a_file_one_succeeds(storage: Storage) -> None:
    done: list[bytes] = []

    def create(content: bytes) -> None:
        if storage.create("leases/0", content):
            done.append(content)

    threads = [threading.Thread(target=create, args=(b"%d" % i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 1 and storage.read("leases/0") == done[0]
    assert storage.names("leases") == ["0"]


def test_a_large_file_moves_in_and_is_fetched_once(storage: Storage) -> None:
    with storage.scratch() as work:
        (work / "big").write_bytes(b"x" * 10**6)
        storage.upload(work / "big", "data/big")
    assert storage.read("data/big") == b"x" * 10**6
    first = storage.local("data/big")
    assert first.read_bytes() == b"x" * 10**6
    if not isinstance(storage, Folder):
        first.unlink()
        assert storage.local("data/big").stat().st_size == 10**6  # another node
        storage.remove("data/big")
        assert storage.local("data/big").exists()  # fetched already
    with pytest.raises(FileNotFoundError):
        storage.local("data/nothing")


def test_data_and_checkpoints_live_in_either(storage: Storage) -> None:
    import torch

    dataset = Dataset(CAlpha(2.0), 16)
    prepared = prepare(dataset, storage, 20, say=lambda line: None)
    again = Prepared.open(storage, dataset.hash(storage))
    assert np.array_equal(prepared.images, again.images) and len(again.images) == 20
    checkpoints = Checkpoints(storage, "trials/abc")
    for step in (1, 2, 3):
        checkpoints.save(step, {"w": torch.full((2,), float(step))}, {})
    assert storage.names("trials/abc") == ["step-000000002.safetensors", "step-000000003.safetensors"]
    storage.write("trials/abc/step-000000003.safetensors", b"cut off")
    latest = checkpoints.latest()
    assert latest is not None and latest[0] == 2


def test_the_time_of_weights_is_that_of_the_first(storage: Storage) -> None:
    import torch

    first = Checkpoints(storage, "t").save_weights(512, {"w": torch.zeros(2)})
    second = Checkpoints(storage, "t").save_weights(512, {"w": torch.zeros(2)})
    assert first == second == storage.modified("t/weights/images-000000000512.safetensors")
    assert list(Checkpoints(storage, "t").weight_history({"w": torch.ones(2)})) == [512]


def test_a_bucket_that_is_not_there(s3: None) -> None:
    with pytest.raises(UserError, match=r"storage s3://elsewhere/x: .*NoSuchBucket"):
        storage_at("s3://elsewhere/x").write("a", b"")


def test_settings_that_are_no_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    for uri in ("s3://", "gs://bucket/x", str(tmp_path / "file")):
        with pytest.raises(UserError, match=r"storage .*: .*(give|is no folder)"):
            storage_at(uri)
    monkeypatch.setenv("GAHB_STORAGE", "~/s")
    assert storage_here().uri == os.path.expanduser("~/s")  # noqa: PTH111
    assert storage_here(str(tmp_path)).uri == str(tmp_path)
