"""Files that mean harm: code that would run when unpickled, archives that lead out of their folder, contents that grow
without end. Each is refused in one line, nothing runs, and memory stays small."""

import io
import pickle
import stat
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from gahb.data.dataset import Prepared
from gahb.errors import UserError
from gahb.tracking import lookup
from gahb.tracking.run import Kind
from gahb.trial import Trial
from tests.broken import npy, png
from tests.helpers import TINY, Ended, Payload, Place, unet

Command = Callable[..., Ended]

LEAST = 256 << 20
"""More than the commands below take; less than what the bombs unpack to."""

ZEROS = bytes(320 << 20)


def refused(ended: Ended, message: str) -> None:
    assert ended.code == 2 and ended.out == "", ended
    (line,) = ended.err.splitlines()
    assert message in line, line


def as_checkpoint(payload: Payload, file: Path) -> None:
    torch.save({**unet(1, 4), "extra": payload}, file)


def as_old_checkpoint(payload: Payload, file: Path) -> None:
    torch.save({"model": [payload]}, file, _use_new_zipfile_serialization=False)


def as_pickle(payload: Payload, file: Path) -> None:
    file.write_bytes(pickle.dumps(payload))


def as_zip_with_pickle(payload: Payload, file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(payload))
        archive.writestr("archive/version", "3")


@pytest.mark.parametrize("save", [as_checkpoint, as_old_checkpoint, as_pickle, as_zip_with_pickle])
def test_a_payload_in_a_published_checkpoint_does_not_run(
    save: Callable[[Payload, Path], None], command: Command, place: Place
) -> None:
    mark, file = place.folder / "executed", place.folder / "model.pt"
    save(Payload(mark), file)
    refused(command("gahb-analyze", "import", str(file), *place.flags), "not executed")
    assert not mark.exists() and place.record.runs(Kind.TRIAL, Kind.IMPORT) == []
    pickle.loads(pickle.dumps(Payload(mark)))
    assert mark.exists(), "the payload is one that would have run"


def test_a_payload_in_an_array_does_not_run(command: Command, place: Place) -> None:
    mark, file = place.folder / "executed", place.folder / "set.npy"
    file.write_bytes(npy(np.array([[[Payload(mark)]]], dtype=object)))
    refused(command("gahb-sweep", "plan", "demo", f"dataset={file}", *place.flags), "not a .npy array")
    assert not mark.exists()


def test_a_payload_in_place_of_checkpoints_does_not_run_and_the_trial_starts_over(copied: Place) -> None:
    mark = copied.folder / "executed"
    content = pickle.dumps(Payload(mark))
    before = copied.artifact("16x16-N1-A", "weights.safetensors").read_bytes()
    copied.execute("UPDATE runs SET status = 'KILLED' WHERE name = '16x16-N1-A'")
    checkpoints = [path for path in (copied.storage / "trials").rglob("*") if path.is_file()]
    for path in checkpoints:
        path.write_bytes(content)
    (row,) = copied.launch([Trial.of({**TINY, "n_train": 1, "subset": "A"})])
    assert checkpoints and row["state"] == "finished" and row["trained"] and not mark.exists()
    assert copied.artifact("16x16-N1-A", "weights.safetensors").read_bytes() == before


@pytest.mark.parametrize("file", ["weights.safetensors", "card.json"])
def test_a_payload_in_an_artifact_does_not_run(file: str, command: Command, copied: Place) -> None:
    mark = copied.folder / "executed"
    torch.save(Payload(mark), copied.artifact("16x16-N1-A", file))
    refused(command("gahb-analyze", "pair", "16x16-N1-A", "16x16-N1-B", *copied.flags), f"{file} cannot be read")
    assert not mark.exists()


@pytest.mark.parametrize("name", ["../out.png", "a/../../out.png", "/tmp/out.png", "..\\out.png"])
def test_a_zip_that_leads_out_of_its_folder(name: str, command: Command, place: Place) -> None:
    file = place.folder / "set.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.png", png())
        archive.writestr(name, png())
    refused(command("gahb-sweep", "plan", "demo", f"dataset={file}", *place.flags), "leads out of the archive")
    assert {path.name for path in place.folder.iterdir()} == {"set.zip"}


def test_a_link_in_a_zip(command: Command, place: Place) -> None:
    file = place.folder / "set.zip"
    with zipfile.ZipFile(file, "w") as archive:
        link = zipfile.ZipInfo("a.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    refused(command("gahb-sweep", "plan", "demo", f"dataset={file}", *place.flags), "a.png is no file")


def zip_bomb(file: Path, method: int = zipfile.ZIP_DEFLATED, content: bytes = ZEROS) -> None:
    with zipfile.ZipFile(file, "w", method, compresslevel=1) as archive:
        archive.writestr("a.png", content)


def zip_bomb_that_lies(file: Path) -> None:
    """It says that its member has 100 bytes."""
    zip_bomb(file)
    size, said = struct.pack("<I", len(ZEROS)), struct.pack("<I", 100)
    file.write_bytes(file.read_bytes().replace(size, said))


def zip_bomb_of_another_method(file: Path) -> None:
    """Bzip2 unpacks all that a few bytes stand for at once."""
    zip_bomb(file, zipfile.ZIP_BZIP2, ZEROS[: 1 << 20])


def image_bomb(file: Path, side: int = 60_000) -> None:
    """A PNG that says it is so wide."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    rows = zlib.compress(ZEROS, 1)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.png", png)


def smaller_image_bomb(file: Path) -> None:
    image_bomb(file, 12_000)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (zip_bomb, "a.png is larger than 256 MiB"),
        (zip_bomb_that_lies, "a.png cannot be decoded"),
        (zip_bomb_of_another_method, "a.png is no file that was stored or deflated"),
        (image_bomb, "a.png cannot be decoded (Image size (3600000000 pixels) exceeds limit"),
        (smaller_image_bomb, "a.png cannot be decoded (Image size (144000000 pixels) exceeds limit"),
    ],
)
def test_bombs_among_images(make: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    make(tmp_path / "set.zip")
    assert (tmp_path / "set.zip").stat().st_size < 4 << 20
    ended, peak = bounded("gahb_sweeps", "plan", "demo", f"dataset={tmp_path / 'set.zip'}")
    refused(ended, message)
    assert peak < LEAST, f"{peak >> 20} MiB"


def test_a_bomb_of_a_checkpoint(tmp_path: Path) -> None:
    stream, file = io.BytesIO(), tmp_path / "model.pt"
    torch.save({"encoder.0.0.weight": torch.zeros(len(ZEROS) // 4)}, stream)
    with zipfile.ZipFile(stream) as plain, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
        for member in plain.namelist():
            packed.writestr(member, plain.read(member))
    ended, peak = bounded("gahb_analysis", "import", str(file))
    refused(ended, "is compressed")
    assert peak < LEAST + (256 << 20), f"{peak >> 20} MiB, of which torch and MLflow take most"


def bounded(package: str, *words: str) -> tuple[Ended, int]:
    """A command in a process of its own, and the most bytes it held."""
    code = (
        "import atexit, pathlib, sys\n"
        "line = lambda: next(l for l in pathlib.Path('/proc/self/status').read_text().splitlines() if 'VmHWM' in l)\n"
        "atexit.register(lambda: pathlib.Path('peak').write_text(line().split()[1]))\n"
        f"from {package}.cli import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=120)
    return Ended(done.returncode, done.stdout, done.stderr), int(Path("peak").read_text()) * 1024


YAML = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
"""Nine to the power of nine words, if it were read."""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("gahb-sweep plan demo dataset={}", "neither a folder"),
        ("gahb-sweep plan demo dataset=ray base={}", "neither a folder"),
        ("gahb-sweep plan demo --record {}", "give sqlite:///FILE"),
        ("gahb-sweep status --record sqlite:///{}", "not a database"),
        ("gahb-sweep plan demo --storage {}", "is no folder"),
        ("gahb-analyze import {}", "no checkpoint"),
    ],
)
def test_a_yaml_bomb_is_not_read(words: str, message: str, command: Command, tmp_path: Path) -> None:
    (tmp_path / "bomb.yaml").write_text(YAML)
    name, *arguments = words.replace("{}", str(tmp_path / "bomb.yaml")).split()
    refused(command(name, *arguments), message)


@pytest.mark.parametrize("uri", ["file:///etc", "file:///etc/{}/artifacts/../..", "file:///etc/{}/artifacts/%2e%2e/x"])
def test_a_record_that_sends_artifacts_elsewhere(uri: str, command: Command, copied: Place) -> None:
    run_id = lookup.find(copied.record, "16x16-N1-A").run_id
    copied.execute("UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", uri.replace("{}", run_id), run_id)
    for words in (["pair", "16x16-N1-A", "16x16-N1-B"], ["curves", "tiny"]):
        refused(command("gahb-analyze", *words, *copied.flags), "no place for them")
    with pytest.raises(UserError, match="no place for them"):
        copied.writer.add_artifacts(run_id, copied.folder)


def test_a_set_of_images_is_read_from_its_own_folder_alone(copied: Place) -> None:
    """What a manifest says of files is not followed."""
    (folder,) = (path.parent for path in copied.storage.glob("data/*/manifest.json"))
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"file": "images-', '"file": "../../secret-'))
    assert Path(Prepared.open(copied.store, folder.name).images.filename).parent == folder  # type: ignore[attr-defined]
    for name in ("../data", folder.name + "/", "", "/etc", folder.name.upper() + "x"):
        with pytest.raises(UserError, match="no hash"):
            Prepared.open(copied.store, name)


def test_nothing_in_the_code_unpickles_or_executes_yaml() -> None:
    root = Path(__file__).parents[1]
    yaml = ("yaml.load", "yaml.full_load", "yaml.unsafe_load")
    words = ("pickle.load", "allow_pickle=True", "weights_only=False", *yaml, "extract", " eval(", " exec(")
    files = [file for folder in ("gahb", "sweeps", "analysis") for file in (root / folder).rglob("*.py")]
    found = {(file.name, word) for file in files for word in words if word in file.read_text()}
    plugin_file, rays_own_task = ("registry.py", " exec("), ("ray_cluster.py", "pickle.load")
    own_child = ("processes.py", "pickle.load")
    assert found == {plugin_file, rays_own_task, own_child}, "none is a file that was received"
