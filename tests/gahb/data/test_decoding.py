import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gahb.data.cropping import THUMBNAIL
from gahb.data.dataset import Dataset, prepare
from gahb.data.decoding import BLOCK, WORTH_A_PROCESS, decode
from gahb.data.image_files import ImageFiles
from gahb.data.processes import processes
from gahb.errors import UserError
from gahb.storage.local import Folder
from tests.gahb.data.test_dataset import write_lmdb, write_zip


def photographs(folder: Path, count: int, width: int = 40, height: int = 32) -> Path:
    """A folder of colour JPEGs and PNGs in turn."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        small.resize((width, height)).save(folder / f"{i:04d}.{'jpg' if i % 2 else 'png'}")
    return folder


def decoded(path: Path, cores: int, resolution: int = 24) -> tuple[np.ndarray, np.ndarray]:
    source = ImageFiles(str(path))
    count = len(source.keys)
    images, thumbnails = np.zeros((count, resolution, resolution), np.uint8), np.zeros((count, THUMBNAIL, THUMBNAIL))
    decode(ImageFiles(str(path)), source.keys, source.frame, images, thumbnails, cores)
    return images, thumbnails


def test_any_number_of_processes_gives_the_same_bytes(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "photographs", 2 * BLOCK + 7)
    archive = write_zip(tmp_path / "photographs.zip", folder)
    rng = np.random.default_rng(1)
    np.save(tmp_path / "array.npy", rng.integers(0, 256, (2 * BLOCK + 1, 30, 30, 3), dtype=np.uint8))
    lsun = write_lmdb(tmp_path / "lsun", rng.integers(0, 256, (BLOCK + 1, 260, 256), dtype=np.uint8), "PNG")
    for path in (folder, archive, tmp_path / "array.npy", lsun):
        alone, together = decoded(path, 1), decoded(path, 2)
        assert alone[0].any(axis=(1, 2)).all() and alone[1].any(axis=(1, 2)).all()
        assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))


def test_the_first_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "photographs", 4 * BLOCK)
    for number in (BLOCK + 4, BLOCK + 6, 3 * BLOCK):
        file = folder / f"{number:04d}.png"
        file.write_bytes(file.read_bytes()[:100])
    for cores in (1, 2):
        with pytest.raises(UserError, match=f"{BLOCK + 4:04d}.png cannot be decoded"):
            decoded(folder, cores)
    (folder / f"{BLOCK + 4:04d}.png").unlink()
    Image.new("RGB", (20, 20)).save(folder / "0001.jpg")
    with pytest.raises(UserError, match=r"resolution=24: 0001.jpg .* only 20 pixels wide"):
        decoded(folder, 2)


def test_a_process_that_is_ended_from_outside_is_reported() -> None:
    with processes(os._exit, 2, "a set") as call, pytest.raises(UserError, match="ended with status 7"):
        call(7)


def test_a_large_folder_is_prepared_by_all_cores_and_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    """One file, many times, so that there is time to interrupt."""
    (kept,) = photographs(tmp_path / "kept", 1, 600, 500).iterdir()
    (tmp_path / "many").mkdir()
    for i in range(2 * WORTH_A_PROCESS):
        (tmp_path / "many" / f"{i:04d}.png").hardlink_to(kept)
    command = [sys.executable, "-c", "from gahb_sweeps.cli import main; main()"]
    arguments = ["data", str(tmp_path / "many"), "resolution=24", "n_train=4", "--storage", str(tmp_path / "storage")]
    cores = min(2, os.cpu_count() or 1)
    with subprocess.Popen([*command, *arguments], start_new_session=True, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while len(decoders := _children(process.pid)) < cores and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        errors = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert len(decoders) == cores and not any(Path(f"/proc/{pid}").exists() for pid in decoders)
    assert list((tmp_path / "storage").glob(".making-*")) == list((tmp_path / "storage").glob("data/*/*.npy")) == []


def _children(parent: int) -> list[int]:
    """The processes that a process has started."""
    found = subprocess.run(["pgrep", "-P", str(parent)], capture_output=True, text=True).stdout
    return [int(pid) for pid in found.split()]


def test_preparation_by_processes_is_that_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, hashes = photographs(tmp_path / "photographs", BLOCK + 3), []
    for worth in (WORTH_A_PROCESS, 1):
        monkeypatch.setattr("gahb.data.decoding.WORTH_A_PROCESS", worth)
        dataset = Dataset(ImageFiles(str(folder), duplicates=1), 24)
        manifest = prepare(dataset, Folder(tmp_path / f"storage{worth}"), 1).manifest
        hashes.append((manifest["hash"], manifest["content_sha256"]))
    assert hashes[0] == hashes[1]
