"""Files, artifacts and records that are broken in one way each.

A maker of a file takes a folder to put it in; a damage changes a finished sweep.
"""

import io
import json
import os
import sqlite3
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.helpers import Place, unet

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 16, 16), dtype=np.uint8)


def file(name: str, content: bytes | str = b"") -> Callable[[Path], Path]:
    def make(here: Path) -> Path:
        (here / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return here / name

    return make


def folder(here: Path) -> Path:
    (here / "folder").mkdir()
    return here / "folder"


def folder_of(name: str, content: bytes) -> Callable[[Path], Path]:
    def make(here: Path) -> Path:
        return file(name, content)(folder(here)).parent

    return make


def png(pixels: Any = PIXELS[0]) -> bytes:
    return encoded(pixels, "PNG")


def encoded(pixels: Any, format: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format)
    return stream.getvalue()


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def npy_header(header: str) -> bytes:
    text = header.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(64)


def zip_of(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_", "."), content)
    return stream.getvalue()


def damaged_zip(here: Path) -> Path:
    """Five pictures, of which 000003.jpg has bytes put to zero."""
    with zipfile.ZipFile(here / "set.zip", "w") as archive:
        for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (5, 24, 24), dtype=np.uint8)):
            archive.writestr(f"set/{i:06d}.jpg", encoded(pixels, "JPEG"))
    content = bytearray((here / "set.zip").read_bytes())
    start = content.find(b"000003.jpg") + 200
    content[start : start + 50] = bytes(50)
    (here / "set.zip").write_bytes(content)
    return here / "set.zip"


def loop(here: Path) -> Path:
    (here / "loop").symlink_to(here / "loop")
    return here / "loop"


def lmdb_of(here: Path) -> Path:
    with lmdb.open(str(folder(here)), map_size=1 << 24) as database, database.begin(write=True) as transaction:
        for i, image in enumerate(PIXELS):
            transaction.put(b"%040d" % i, png(image))
    (here / "folder/lock.mdb").unlink()
    return here / "folder"


def cut_lmdb(here: Path) -> Path:
    data = lmdb_of(here) / "data.mdb"
    os.truncate(data, 8192)
    return data.parent


def checkpoint(content: object) -> Callable[[Path], Path]:
    def make(here: Path) -> Path:
        torch.save(content, here / "model.pt")
        return here / "model.pt"

    return make


def other_database(here: Path) -> Path:
    with sqlite3.connect(here / "other.db") as database:
        database.execute("CREATE TABLE songs (title)")
    database.close()
    return here / "other.db"


def spoilt(
    artifact: str, change: Callable[[bytes], bytes | str | dict[str, Any]], run: str = "16x16-N1-A"
) -> Callable[[Place], None]:
    """An artifact of a run with other content."""

    def make(place: Place) -> None:
        path = place.artifact(run, artifact)
        content = change(path.read_bytes())
        content = json.dumps(content) if isinstance(content, dict) else content
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return make


def card(**changes: Any) -> Callable[[Place], None]:
    """The card of a run with other values; None takes a key out."""
    return spoilt("card.json", lambda content: _changed(json.loads(content), changes))


def card_trial(**changes: Any) -> Callable[[Place], None]:
    return spoilt(
        "card.json", lambda content: (old := json.loads(content)) | {"trial": _changed(old["trial"], changes)}
    )


def _changed(old: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in {**old, **changes}.items() if value is not None}


def manifest(**changes: Any) -> Callable[[Place], None]:
    def make(place: Place) -> None:
        (path,) = (place.storage / "data").glob("*/manifest.json")
        path.write_text(json.dumps(_changed(json.loads(path.read_text()), changes)))

    return make


def cut_images(place: Place) -> None:
    (path,) = (place.storage / "data").glob("*/images-*.npy")
    os.truncate(path, 1000)


def other_weights(place: Place) -> None:
    path = place.artifact("16x16-N1-A", "weights.safetensors")
    save_file({key: tensor[:1].contiguous() for key, tensor in load_file(path).items()}, path)


def weights_gone(place: Place) -> None:
    place.artifact("16x16-N1-A", "weights.safetensors").unlink()


def state(status: str) -> Callable[[Place], None]:
    """The first run with another status."""
    return lambda place: place.execute("UPDATE runs SET status = ? WHERE name = '16x16-N1-A'", status)


def imported(place: Place) -> str:
    """The name of an imported model; its resolution is 40."""
    torch.save(unet(2, 4), place.folder / "theirs.pt")
    from gahb_analysis.importing import import_checkpoint

    run = import_checkpoint(place.writer, place.folder / "theirs.pt", name="theirs", resolution=None, first_relu=False)
    return run.name
