"""Files made to cost who reads them all memory, all time or the process: each ends in one line or is passed over."""

import hashlib
import io
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lmdb
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from gahb.data import image_files, lsun
from gahb.data.cropping import gray, square_of
from gahb.data.dataset import Dataset, Prepared, prepare
from gahb.data.disks import Disks
from gahb.data.image_files import ImageFiles
from gahb.data.image_ray import ImageRay
from gahb.data.source import in_threads
from gahb.errors import UserError
from gahb.execution.worker import TrialRun
from gahb.models import published
from gahb.storage import leases
from gahb.storage.local import Folder
from gahb.tracking.run import Kind
from gahb.training import loop, weights
from gahb.training.checkpoints import Checkpoints
from gahb.trial import Trial
from tests.broken import checkpoint, encoded, file, lmdb_of, npy, npy_header, png
from tests.helpers import Ended, Place, bf_cnn, dncnn, unet

Command = Callable[..., Ended]
Maker = Callable[[Path], object]

MEMORY, SECONDS = 1 << 30, 60
"""What a test may take besides what this process has: bytes, and seconds until it counts as without end."""


@pytest.fixture(autouse=True)
def _limits() -> Iterator[None]:
    """What takes more ends in an error of its own instead of this machine."""

    def too_long(*_: object) -> None:
        raise TimeoutError("without end")

    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)


def python(code: str, *words: str) -> Ended:
    """A program in a process of its own, under these limits of memory, and few of processor time."""
    limits = f"import resource\nresource.setrlimit(resource.RLIMIT_CPU, ({SECONDS}, {SECONDS}))\n"
    done = subprocess.run(
        [sys.executable, "-c", limits + code, *words],
        capture_output=True,
        text=True,
        timeout=2 * SECONDS,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def sweep_command(*words: str) -> Ended:
    return python("from gahb_sweeps.cli import main\nmain()", *words)


def refused(ended: Ended, *messages: str) -> None:
    lines = [line for line in ended.err.splitlines() if not line.startswith("reading ")]
    assert ended.code == 2 and ended.out == "" and len(lines) == 1, ended
    assert all(message in lines[0] for message in messages), lines[0]


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def zeros(path: Path) -> Path:
    """A device that never ends, by a link."""
    path.symlink_to("/dev/zero")
    return path


# published checkpoints


def endless_pickle(here: Path) -> Path:
    """A tuple of two, sixty deep, is the key of a dictionary: to hash it takes 2^60 steps."""
    deep = b"".join(b"h\x01h\x01\x86" + b"q\x01" for _ in range(60))
    (here / "endless.pt").write_bytes(b"\x80\x02)q\x01" + deep + b"}h\x01K\x01s.")
    return here / "endless.pt"


def test_a_pickle_that_takes_for_ever(command: Command, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "CPU_SECONDS", 2)
    path = endless_pickle(place.folder)
    assert path.stat().st_size < 500
    refused(command("gahb-analyze", "import", str(path), *place.flags), "endless.pt takes too much to read")
    assert place.record.runs(Kind.IMPORT) == []


def test_a_child_that_does_not_answer_is_given_up(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "SECONDS", 0.1)
    with pytest.raises(UserError, match=r"model.pt was not read in 0.1 s"):
        published.read(checkpoint(unet(1, 4))(place.folder))


@pytest.mark.parametrize(
    ("make", "message"),
    [(lambda here: pipe(here / "pipe.pt"), "no file"), (lambda here: zeros(here / "zeros.pt"), "no file")],
)
def test_what_is_no_file_is_no_checkpoint(make: Maker, message: str, place: Place) -> None:
    with pytest.raises(UserError, match=message):
        published.read(Path(str(make(place.folder))))


UNET = unet(1, 4)
HALF = {key: tensor.half() for key, tensor in UNET.items()}
ODD: list[object] = [
    {**UNET, "no dots": torch.ones(1)},
    {**UNET, 7: torch.ones(1)},
    {**UNET, ("a", "b"): torch.ones(1)},
    {**UNET, "encoder": torch.ones(1)},
    {**UNET, "encoder.": torch.ones(1)},
    {f"{key}.x" if "gammas" in key else key: tensor for key, tensor in UNET.items()},
    {**UNET, "encoder.0.0.weight": torch.tensor(1.0)},
    {**UNET, "encoder.0.0.weight": torch.ones(4, 1, 3)},
    {**UNET, "encoder.0.0.weight": torch.ones(0, 1, 3, 3)},
    {**UNET, **{f"encoder.{i}.0.weight": torch.ones(1) for i in range(50)}},
    {key: tensor.to(torch.complex64) for key, tensor in UNET.items()},
    {key: tensor.to(torch.float8_e4m3fn) for key, tensor in UNET.items()},
    {**bf_cnn(4, set()), "conv_layers.x.weight": torch.ones(1)},
    {**bf_cnn(4, set()), "conv_layers": torch.ones(1)},
    {**bf_cnn(4, set()), "conv_layers.-1.weight": torch.ones(1)},
    {**bf_cnn(4, set()), "conv_layers.5.weight": torch.tensor(1.0)},
    {**bf_cnn(4, set()), f"conv_layers.{'9' * 5000}.weight": torch.ones(1, 1, 1, 1)},
    {**bf_cnn(4, set()), "BN_layers.²": torch.ones(1)},
    {"conv_layers.0.weight": torch.ones(4, 1, 3, 3)},
    {**dncnn(4), "bn_layer_list": torch.ones(1)},
    {**dncnn(4), "bn_layer_list.x.weight": torch.ones(1)},
    {**dncnn(4), "bn_layer_list.0.running_var": torch.ones(3)},
    {**dncnn(4), "bn_layer_list.0.running_var": -torch.ones(4)},
    {**dncnn(4), "first_layer": torch.ones(1)},
    {**dncnn(4), **{f"hidden_layer_list.{i}.weight": torch.ones(1) for i in range(5000)}},
    {"first_layer.weight": torch.ones(4, 1, 3, 3)},
    {"model": {"model": {"model": 1}}},
    [[[[]]]],
]


def test_odd_checkpoints_end_in_one_line(place: Place) -> None:
    """Each by the child's own function, as whatever that raises is one line of `read`; a few by a child."""
    for number, content in enumerate(ODD):
        path = checkpoint(content)(place.folder)
        if number % 9 == 0:
            with pytest.raises(UserError) as error:
                published.read(path)
            assert str(path) in str(error.value) and "\n" not in str(error.value)
            continue
        with path.open("rb") as stream, pytest.raises(Exception):  # noqa: B017
            published.fit(*published.translated(stream, path.stat().st_size))


def test_half_precision_is_read_as_before(place: Place) -> None:
    denoiser, _ = published.read(checkpoint(HALF)(place.folder))
    assert all(tensor.dtype == torch.float32 for tensor in denoiser.state_dict().values())


# cards

SMALL = {"architecture": "unet", "blocks": 1, "width": 8}


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ({"architecture": SMALL, "resolution": 20_000}, "resolution=20000: must be at most 1024"),
        ({"architecture": SMALL, "resolution": 10**30}, "must be at most 1024"),
        ({"architecture": SMALL, "resolution": 20.0}, "whole number"),
        ({"architecture": SMALL, "resolution": True}, "whole number"),
        ({"architecture": {**SMALL, "width": 10**9}, "resolution": 20}, "width=1000000000"),
        ({"architecture": {**SMALL, "blocks": 10**6}, "resolution": 20}, "blocks=1000000"),
        ({"architecture": {"architecture": "bf_cnn", "layers": 10**9}, "resolution": 20}, "layers=1000000000"),
        ({"architecture": {"architecture": "transformer", "depth": 4096}, "resolution": 20}, "depth=4096"),
        ({"architecture": SMALL, "resolution": 20, "more": "x" * (2 << 20)}, "has more than"),
        ("[" * 100_000, "cannot be read"),
        (pipe, "no regular file"),
        (zeros, "no regular file"),
    ],
)
def test_cards(card: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    if callable(card):
        card(path)
    else:
        path.write_text(card if isinstance(card, str) else json.dumps(card))
    with pytest.raises(UserError, match=message):
        weights.read(tmp_path)


@pytest.mark.parametrize("make", [pipe, zeros])
def test_weights_that_are_no_file(make: Callable[[Path], Path], tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text(json.dumps({"architecture": SMALL, "resolution": 20}))
    make(tmp_path / "weights.safetensors")
    with pytest.raises(UserError, match="no regular file"):
        weights.read(tmp_path)


def test_an_imported_model_is_sampled_at_a_resolution_that_fits(command: Command, place: Place) -> None:
    path = checkpoint(UNET)(place.folder)
    ended = command("gahb-analyze", "import", str(path), "--resolution", "20000", *place.flags)
    refused(ended, "resolution=20000: must be at most 1024")


# arrays and prepared sets


def sparse(shape: str, size: int) -> Maker:
    """An array that takes no room on the disk."""

    def make(here: Path) -> Path:
        path = file("x.npy", npy_header(f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}"))(here)
        os.truncate(path, 129 + size)
        return path

    return make


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (sparse("(1, 8000, 8000)", 8000**2), "are 8000×8000, and at most"),
        (sparse("(1, 1, 100000000, 3)", 3 * 10**8), "are 100000000×1, and at most"),
        (sparse("(30000000, 1, 1)", 30_000_000), "30,000,000 images"),
        (sparse("(5000000, 1, 1)", 5_000_000), "limit=4000000"),
        (file("x.npy", npy_header("{'descr': '|u1', 'shape': " + "(" * 40)), "not a .npy array"),
        (file("x.npy", b"\x93NUMPY\x01\x00\xff\xff" + b"[" * 65535), "not a .npy array"),
        (file("x.npy", npy(np.zeros((2, 2, 2), np.uint8))[:40]), "not a .npy array"),
    ],
)
def test_arrays(make: Maker, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        Dataset(ImageFiles(str(make(tmp_path))), 1).hash(Folder(tmp_path / "storage"))


DEEP = b"[" * 100_000


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("manifest.json", pipe),
        ("manifest.json", zeros),
        ("manifest.json", lambda path: path.write_bytes(DEEP)),
        ("manifest.json", lambda path: path.write_bytes(b" " * (2 << 20) + b"{}")),
        ("manifest.json", lambda path: path.write_text('{"count": 10, "recipe": {"resolution": 1e400}}')),
        ("manifest.json", lambda path: path.write_text("7")),
        ("manifest.json", lambda path: path.symlink_to("/etc/hostname")),
        ("images-10.npy", pipe),
        ("images-10.npy", zeros),
        ("images-10.npy", lambda path: path.write_bytes(b"\x93NUMPY\x01\x00\xff\xff" + DEEP[:65535])),
        ("images-10.npy", lambda path: path.write_bytes(npy_header("{'descr': '|u1', 'shape': (-1,), 'x': 1}"))),
    ],
)
def test_prepared_images(name: str, damage: Callable[[Path], object], tmp_path: Path) -> None:
    storage = Folder(tmp_path)
    data_hash = prepare(Dataset(Disks(), 8), storage, 10).manifest["hash"]
    path = tmp_path / "data" / data_hash / name
    path.unlink()
    damage(path)
    with pytest.raises(UserError, match="remove it"):
        Prepared.open(storage, data_hash)


def test_many_chunks_are_begun_one_after_another() -> None:
    """A thousand million calls, of which the first fails."""
    begun: list[int] = []

    def fail(number: int) -> None:
        begun.append(number)
        raise UserError(f"call {number}")

    with pytest.raises(UserError, match="call 0"):
        in_threads(fail, 10**9, 2)
    assert len(begun) < 100


# image files


def chunk(kind: bytes, content: bytes) -> bytes:
    import zlib

    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def tiled_tiff() -> bytes:
    """20×20 pixels, in one tile of 46,320² of which none is written out."""
    entries = [
        (256, 3, 1, 20), (257, 3, 1, 20), (258, 3, 1, 8), (259, 3, 1, 5), (262, 3, 1, 1), (277, 3, 1, 1),
        (322, 4, 1, 46_320), (323, 4, 1, 46_320), (324, 4, 1, 200), (325, 4, 1, 3),
    ]  # fmt: skip
    body = b"".join(
        struct.pack("<HHI", tag, kind, count)
        + (struct.pack("<HH", value, 0) if kind == 3 else struct.pack("<I", value))
        for tag, kind, count, value in entries
    )
    whole = b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4)
    return whole.ljust(200, b"\0") + b"\x80\x00\x00"


def scans() -> bytes:
    """A progressive JPEG of 2000×2000 with the last of its scans a thousand times more."""
    content = encoded(np.full((2000, 2000), 100, np.uint8), "JPEG")
    stream = io.BytesIO()
    Image.open(io.BytesIO(content)).save(stream, "JPEG", progressive=True)
    content = stream.getvalue()
    last = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + 1000 * last + b"\xff\xd9"


def run_length_bmp(width: int = 22_400_000) -> bytes:
    """A kilobyte that goes up 255 rows."""
    start = 14 + 40 + 1024
    data = b"\x00\x02\x00\xff\x00\xff\x00\x01"
    about = struct.pack("<IiiHHIIiiII", 40, width, 2, 1, 8, 1, len(data), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + about + bytes(1024) + data


SIDE = 2500


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tif", tiled_tiff(), r"a.tif has a tile of 2,145,542,400 pixels"),
        ("a.ppm", b"P6 %d %d 254\n" % (SIDE, SIDE) + bytes(3 * SIDE**2), "6,250,000 pixels in a form that takes"),
        ("a.pgm", b"P2 %d %d 255\n" % (SIDE, SIDE) + b"0 " * SIDE**2, "6,250,000 pixels in a form that takes"),
        ("a.pgm", b"P1 %d %d\n" % (SIDE, SIDE) + b"0" * SIDE**2, "6,250,000 pixels in a form that takes"),
        ("a.bmp", run_length_bmp(), "pixels in a form that takes"),
        ("a.jpg", scans(), "more than 100 scans"),
        ("a.png", png(np.zeros((7500, 7500), np.uint8)), "56,250,000 pixels, and at most 52,428,800"),
    ],
)
def test_image_bombs(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    path = file(name, content)(tmp_path)
    with pytest.raises(UserError, match=message):
        _ = ImageFiles(str(path)).frame


def test_what_looks_like_scans_outside_of_them_does_no_harm(tmp_path: Path) -> None:
    content = encoded(np.full((40, 40, 3), 9, np.uint8), "JPEG")
    comment = b"\xff\xfe" + struct.pack(">H", 2002) + 1000 * b"\xff\xda"
    path = file("a.jpg", content[:2] + comment + content[2:] + 1000 * b"\xff\xda")(tmp_path)
    assert ImageFiles(str(path)).square("a.jpg", "centre").shape == (40, 40)


def test_small_images_in_slow_forms_are_read(tmp_path: Path) -> None:
    path = file("a.pgm", b"P2 3 3 9\n" + b"5 " * 9)(tmp_path)
    assert np.all(ImageFiles(str(path)).square("a.pgm", "centre") == round(5 / 9 * 255))


def test_the_largest_image_takes_less_than_a_gigabyte(tmp_path: Path) -> None:
    """Under the limit of memory of these tests."""
    side = int(image_files.MOST_PIXELS**0.5)
    Image.new("RGB", (side, side), (10, 20, 40)).save(tmp_path / "a.png", compress_level=1)
    square = ImageFiles(str(tmp_path / "a.png")).square("a.png", "centre")
    assert square.shape == (side, side) and square[0, 0] == square[-1, -1] == np.float32(70) / 3


MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(37, 23), (23, 41), (178, 218)])
def test_bands_give_the_pixels_of_the_plain_formula(
    mode: str, size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_files, "BAND", 100)
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    whole = Image.fromarray(noise).convert("RGB")
    if mode == "I;16":
        whole = Image.fromarray(noise[..., 0].astype(np.uint16) * 3)
    elif mode in ("I", "F"):
        whole = Image.fromarray(noise[..., 0].astype({"I": np.int32, "F": np.float32}[mode]) * 3 - 100)
    else:
        whole = (Image.fromarray(noise) if mode == "RGBA" else whole).convert(mode)
    whole.save(tmp_path / "a.tif")
    source = ImageFiles(str(tmp_path / "a.tif"))
    with Image.open(tmp_path / "a.tif") as image:
        assert image.mode == mode
        plain = image.convert("L" if mode in ("L", "1", "I;16", "I", "F") else "RGB")
    top, left, side = square_of(*plain.size, source.frame)
    expected = gray(np.asarray(plain)[top : top + side, left : left + side])
    assert np.array_equal(source.square("a.tif", source.frame), expected)


@pytest.fixture
def emptied(tmp_path: Path) -> Iterator[Path]:
    """A folder whose content Python cannot remove."""
    yield tmp_path
    subprocess.run(["rm", "-rf", *tmp_path.iterdir()], check=True)


def test_deep_folders_and_long_names(emptied: Path) -> None:
    here = os.open(emptied, os.O_RDONLY)
    try:
        for _ in range(1300):
            os.mkdir("d", dir_fd=here)
            deeper = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = deeper
    finally:
        os.close(here)
    (emptied / "a.png").write_bytes(png())
    with pytest.raises(UserError, match="cannot be listed"):
        ImageFiles(str(emptied)).keys  # noqa: B018
    with pytest.raises(UserError, match="no such file"):
        ImageFiles(str(emptied / ("x" * 5000))).keys  # noqa: B018


def test_a_folder_with_pipes_and_devices(tmp_path: Path) -> None:
    pipe(tmp_path / "pipe.png")
    zeros(tmp_path / "zeros.png")
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    assert ImageFiles(str(tmp_path)).keys == ["a.png", "b.png"]


# LMDB


def lmdb_with(here: Path, place: int, value: int) -> Path:
    """An LMDB in which two bytes of the page of its images are others."""
    folder = lmdb_of(here)
    content = bytearray((folder / "data.mdb").read_bytes())
    struct.pack_into("<H", content, content.rindex(b"%040d\x89PNG" % 8) // 4096 * 4096 + place, value)
    (folder / "data.mdb").write_bytes(content)
    return folder


def test_a_database_that_ends_who_reads_it(tmp_path: Path) -> None:
    """The first image is said to be beyond the file's end."""
    images = lmdb_with(tmp_path, 16, 65_535)
    for words in (f"data {images} resolution=8", f"plan demo dataset=ray base={images}"):
        ended = sweep_command(*words.split(), "n_train=1", "n_test=1", "--storage", str(tmp_path / "storage"))
        refused(ended, str(images), "ended the process that read it (signal 7): it is damaged or hostile")


def test_a_database_whose_image_ends_who_reads_it(tmp_path: Path) -> None:
    """The keys are read, and an image ends the process, in each of the ways that one is read."""
    images = lmdb_of_large_images(tmp_path, [png(np.zeros((300, 300), np.uint8)) + bytes(9000)])
    content = bytearray((images / "data.mdb").read_bytes())
    struct.pack_into("<H", content, content.rindex(b"k00") - 6, 0x0C80)  # 200 MiB
    (images / "data.mdb").write_bytes(content)
    assert ImageFiles(str(images)).keys == ["k00"]
    for dataset in (Dataset(ImageFiles(str(images)), 8), Dataset(ImageRay(base=str(images)), 8)):
        with pytest.raises(UserError, match="ended the process that read it"):
            prepare(dataset, Folder(tmp_path / "storage"), 1)


def test_a_database_of_images_that_are_too_large(tmp_path: Path) -> None:
    images = lmdb_of_large_images(tmp_path, [bytes(257 << 20)])
    with pytest.raises(UserError, match="k00 is missing or larger than 256 MiB"):
        prepare(Dataset(ImageFiles(str(images)), 8), Folder(tmp_path / "storage"), 1)


def lmdb_of_large_images(here: Path, images: list[bytes]) -> Path:
    with lmdb.open(str(here / "set"), map_size=300 << 20) as database, database.begin(write=True) as transaction:
        for number, image in enumerate(images):
            transaction.put(b"k%02d" % number, image)
    return here / "set"


def test_a_database_with_more_keys_than_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lsun, "MOST_KEYS", 8)
    with pytest.raises(UserError, match="more keys than can be"):
        lsun._keys(lmdb_of(tmp_path))


# what others may write into a storage


@pytest.mark.parametrize("make", [pipe, zeros, lambda path: path.symlink_to("/etc/hostname"), Path.mkdir])
def test_a_storage_gives_out_regular_files_alone(make: Callable[[Path], object], tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    storage = Folder(tmp_path / "link")
    storage.write("folder/good", b"good")
    (tmp_path / "real/other").symlink_to(tmp_path / "real/folder")
    assert storage.read("other/good", 4) == b"good" and storage.local("other/good").read_bytes() == b"good"
    make(tmp_path / "real/bad")
    for use in (storage.read, storage.local):
        with pytest.raises(UserError, match="is no regular file"):
            use("bad")
    with pytest.raises(UserError, match="more than 3 bytes"):
        storage.read("folder/good", 3)


LEASES: list[bytes | Callable[[Path], object]] = [
    b"",
    b"\xff" * 10,
    b"../../../etc/passwd",
    b"x" * (64 << 20),
    pipe,
    zeros,
]
HEARTBEATS: list[bytes | Callable[[Path], object]] = [
    b"",
    b"[]",
    b"{",
    b"7",
    DEEP,
    b'{"host": 1, "pid": 1}',
    b'{"host": "here"}',
    json.dumps({"host": socket.gethostname(), "pid": 0}).encode(),
    json.dumps({"host": socket.gethostname(), "pid": -1}).encode(),
    json.dumps({"host": socket.gethostname(), "pid": 10**30}).encode(),
    json.dumps({"host": socket.gethostname(), "pid": "1"}).encode(),
    b" " * (64 << 20),
    pipe,
    zeros,
]


def put(path: Path, content: bytes | Callable[[Path], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content(path) if callable(content) else path.write_bytes(content)


@pytest.mark.parametrize("content", LEASES, ids=range(len(LEASES)))
def test_a_lease_that_no_launch_wrote_is_free(content: bytes | Callable[[Path], object], tmp_path: Path) -> None:
    storage = Folder(tmp_path)
    put(tmp_path / "leases/abc/000000", content)
    assert leases.acquire(storage, "abc", "0123456789ab")


@pytest.mark.parametrize("content", HEARTBEATS, ids=range(len(HEARTBEATS)))
def test_a_heartbeat_that_no_launch_wrote_is_dead(content: bytes | Callable[[Path], object], tmp_path: Path) -> None:
    storage = Folder(tmp_path)
    put(tmp_path / "launches/abc", content)
    assert not leases.alive(storage, "abc") and not leases.wait_for_heartbeats(["abc", "../x"], storage, print)


def test_a_heartbeat_of_the_future_is_waited_for_no_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "LEASE_TTL", 1)
    storage = Folder(tmp_path)
    storage.write("launches/abc", b'{"host": "elsewhere", "pid": 1}')
    os.utime(tmp_path / "launches/abc", (2**33, 2**33))
    assert leases.wait_for_heartbeats(["abc"], storage, lambda line: None)


# checkpoints

FLAT = {
    "dataset": "disks", "resolution": 8, "width": 4, "blocks": 1, "n_train": 3, "n_test": 5, "batch_size": 8,
    "images": 8 * 40,
}  # fmt: skip


def trained(folder: Path, images: torch.Tensor) -> loop.Trained:
    training = loop.Training(Trial.of(FLAT), images[:3], images[3:], torch.device("cpu"))
    return loop.train(training, Checkpoints(Folder(folder)), loop.Options(checkpoint_seconds=0))


Parts = tuple[dict[str, torch.Tensor], dict[str, Any]]


def nested(depth: int) -> Any:
    found: Any = 1.0
    for _ in range(depth):
        found = [found]
    return found


def changed(key: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Parts], Parts]:
    return lambda parts: ({**parts[0], key: change(parts[0][key])}, parts[1])


def facts(**changes: Any) -> Callable[[Parts], Parts]:
    return lambda parts: (parts[0], {key: v for key, v in {**parts[1], **changes}.items() if v is not None})


def evaluation(**changes: Any) -> Callable[[Parts], Parts]:
    return lambda parts: (parts[0], {**parts[1], "history": [{**parts[1]["history"][0], **changes}]})


def without_tensor(parts: Parts) -> Parts:
    return {key: tensor for key, tensor in parts[0].items() if key != FIRST}, parts[1]


FIRST = "encoder.0.0.weight"
DAMAGE: list[Callable[[Parts], Parts]] = [
    facts(step=10**9),
    facts(step=39),
    facts(step="40"),
    facts(step=None),
    facts(history=None),
    facts(history=7),
    facts(history=[7]),
    facts(history=nested(900)),
    facts(seconds="x"),
    evaluation(curve={"train": [1.0], "test": [1.0]}),
    evaluation(curve={"train": nested(900), "test": []}),
    evaluation(curve=[]),
    evaluation(loss="x"),
    evaluation(images_seen=1e9),
    evaluation(time=float("nan")),
    evaluation(more=1),
    without_tensor,
    changed(FIRST, lambda tensor: tensor.double()),
    changed(FIRST, lambda tensor: tensor.to(torch.float8_e4m3fn)),
    changed(FIRST, lambda tensor: tensor.to(torch.float8_e4m3fn).view(torch.float4_e2m1fn_x2)),
    changed(FIRST, lambda tensor: tensor[:1].clone()),
    changed(FIRST, lambda tensor: torch.zeros(())),
    changed(f"exp_avg:{FIRST}", lambda tensor: tensor.flatten()),
]


def packed(tensors: dict[str, torch.Tensor], about: dict[str, Any]) -> bytes:
    """A checkpoint with the digest that belongs to it, as anybody may write one."""
    text = json.dumps(about)
    total = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        total.update(name.encode())
        total.update(tensors[name].flatten().view(torch.uint8).numpy().data)
    return save(tensors, metadata={"facts": text, "sha256": total.hexdigest()})


def test_checkpoints_of_others_are_passed_over(tmp_path: Path) -> None:
    """What a training goes on from is the true one, whatever stands in place of the newer."""
    images = torch.from_numpy(prepare(Dataset(Disks(), 8), Folder(tmp_path), 8).images[:8].copy()).unsqueeze(1)
    result = trained(tmp_path, images)
    saved = Checkpoints(Folder(tmp_path)).latest()
    assert saved is not None and saved[0] == 40
    newest = tmp_path / "step-000000040.safetensors"
    for number, damage in enumerate(DAMAGE):
        tensors, about = damage((dict(saved[1]), dict(saved[2])))
        newest.write_bytes(packed(tensors, about))
        again = trained(tmp_path, images)
        assert again.history == result.history, number
        assert torch.equal(again.denoiser.net.state_dict()[FIRST], result.denoiser.net.state_dict()[FIRST]), number


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("step-000000002.safetensors", pipe),
        ("step-000000002.safetensors", zeros),
        ("step-x.safetensors", lambda path: path.write_bytes(b"x")),
        ("step-1000000000.safetensors", lambda path: path.write_bytes(b"x")),
        ("step-000000002.safetensors", lambda path: path.write_bytes(save({"w": torch.zeros(3)}))),
        ("step-000000003.safetensors", lambda path: path.write_bytes(packed({"w": torch.zeros(3)}, {"step": 2}))),
    ],
)
def test_files_among_checkpoints(name: str, make: Callable[[Path], object], tmp_path: Path) -> None:
    checkpoints = Checkpoints(Folder(tmp_path))
    checkpoints.save(1, {"w": torch.ones(3)}, {})
    make(tmp_path / name)
    saved = checkpoints.latest()
    assert saved is not None and saved[0] == 1
    assert checkpoints.step >= 1


def test_files_among_weights(tmp_path: Path) -> None:
    checkpoints = Checkpoints(Folder(tmp_path))
    checkpoints.save_weights(8, {"w": torch.ones(3)})
    (tmp_path / "weights/images-x.safetensors").write_bytes(b"x")
    (tmp_path / "weights/images-000000000016.safetensors").write_bytes(save({"w": torch.zeros(3)}))
    (tmp_path / "weights/images-000000000032.safetensors").symlink_to(
        tmp_path / "weights/images-000000000008.safetensors"
    )
    for images_seen, tensors in ((64, {"w": torch.ones(4)}), (128, {"w": torch.ones(3), "v": torch.ones(1 << 20)})):
        checkpoints.save_weights(images_seen, tensors)
    assert list(checkpoints.weight_history({"w": torch.ones(3)})) == [8]


@pytest.mark.parametrize("content", [b"[" * 2000, b"[]", b'{"images_seen": "8"}', b'{"images_seen": NaN}', bytes(5000)])
def test_what_a_training_took_is_not_believed_to_others(content: bytes, place: Place) -> None:
    storage = place.store
    storage.write("trials/t/spent.json", content)
    run = object.__new__(TrialRun)
    run.checkpoints, run.task = Checkpoints(storage), SimpleNamespace(folder="trials/t")  # type: ignore[assignment]
    assert run._first_totals({"images_seen": 64, "peak_memory_gb": 1.0})[0] == {
        "images_seen": 64,
        "peak_memory_gb": 1.0,
    }
    assert run._first_totals({"images_seen": 64, "peak_memory_gb": 2.0})[0] == {
        "images_seen": 64,
        "peak_memory_gb": 1.0,
    }
