"""What users get wrong, and what is wrong with their files: one line on stderr, exit status 2, and nothing written."""

import shlex
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from tests.broken import (
    PIXELS,
    card,
    card_trial,
    checkpoint,
    cut_images,
    cut_lmdb,
    damaged_zip,
    file,
    folder,
    folder_of,
    imported,
    lmdb_of,
    loop,
    manifest,
    npy,
    npy_header,
    other_database,
    other_weights,
    png,
    spoilt,
    state,
    weights_gone,
    zip_of,
)
from tests.helpers import Ended, Place, copy, unet

Command = Callable[..., Ended]

READS = "gahb-sweep plan demo dataset={}"
LAUNCHES = "gahb-sweep launch demo n_train=1 n_test=1 dataset={}"
PREPARES = "gahb-sweep data {} n_train=1 n_test=1 resolution=8"
IMPORTS = "gahb-analyze import {}"
COMPARES = "gahb-analyze pair 16x16-N1-A 16x16-N1-B --samples 2"


HEADER = "{{'descr': '|u1', 'fortran_order': False, 'shape': ({}, 9, 9)}}"
SMALL = {"architecture": "unet", "blocks": 1, "width": 8}
UNET = unet(1, 4)

WORDS: list[tuple[str, str]] = [
    # the words of a command
    ("gahb-sweep", "Missing command"),
    ("gahb-sweep lunch", "No such command 'lunch'"),
    ("gahb-sweep list extra", "unexpected extra argument"),
    ("gahb-sweep plan", "Missing argument"),
    ("gahb-sweep plan demmo", "did you mean 'demo'"),
    ("gahb-sweep plan demo --jsn", "--json"),
    ("gahb-sweep plan demo --devices 0", "greater than or equal to 1"),
    ("gahb-sweep show ''", "no trial ''"),
    ("gahb-sweep show nothing", "no trial 'nothing'"),
    ("gahb-sweep show 16x16", "no trial '16x16'"),
    ("gahb-sweep status tinny", "no sweep 'tinny'"),
    ("gahb-sweep status 'x`y'", "no sweep 'x`y'"),
    ("gahb-sweep status ''", "no sweep ''"),
    ("gahb-sweep launch demo --as a/b", "letters, digits"),
    ("gahb-sweep launch demo --as ''", "letters, digits"),
    (f"gahb-sweep launch demo --as {'a' * 101}", "at most 100"),
    ("gahb-sweep launch demo --retries 1.5", "--retries"),
    ("gahb-sweep launch demo --gpus-per-trial -1", "gpus-per-trial"),
    ("gahb-sweep launch demo --cpus-per-trial nan", "cpus-per-trial"),
    ("gahb-analyze pair 16x16-N1-A", "Missing argument"),
    ("gahb-analyze pairs ''", "no sweep ''"),
    ("gahb-analyze phase nothing", "no sweep 'nothing'"),
    ("gahb-analyze memorization nothing", "no sweep 'nothing'"),
    ("gahb-analyze memorization tiny --samples 1", "samples"),
    ("gahb-analyze report nothing", "no sweep 'nothing'"),
    ("gahb-analyze transfer", "Missing argument"),
    ("gahb-analyze transfer tiny", "two data sets"),
    ("gahb-analyze scaling tiny --threshold 0", "threshold"),
    ("gahb-analyze scaling tiny --threshold inf", "threshold"),
    ("gahb-analyze curves tiny --fit 42 20", "holds 0 of the noise levels"),
    ("gahb-analyze curves tiny --fit nan nan", "holds 0 of the noise levels"),
    ("gahb-analyze theory 16x16-N1-A --fit 1 1", "holds 0 of the noise levels"),
    ("gahb-analyze basis 16x16-N1-A --image 32", "32"),
    ("gahb-analyze basis 16x16-N1-A --sigma inf", "sigma"),
    ("gahb-analyze basis 16x16-N1-A --images-of nothing", "no trial 'nothing'"),
    ("gahb-analyze trajectories 16x16-N1-A 16x16-N1-B --sample 1e3", "sample"),
    # settings
    ("gahb-sweep plan demo n_train", "not of the form key=value"),
    ("gahb-sweep plan demo =5", "unknown key ''"),
    ("gahb-sweep plan demo n_train=1,", "n_train=: must be a whole number"),
    ("gahb-sweep plan demo n_train=1 n_train=2", "given twice"),
    ("gahb-sweep plan demo n_trian=1", "did you mean 'n_train'"),
    ("gahb-sweep plan demo größe=3", "unknown key 'größe'"),
    ("gahb-sweep plan demo n_train=0", "at least 1"),
    ("gahb-sweep plan demo n_train=²", "a whole number"),
    ("gahb-sweep plan demo n_train=1000000000000000000", "at most 1000000000000"),
    ("gahb-sweep plan demo images=1e30", "at most"),
    ("gahb-sweep plan demo images=1e400", "a whole number"),
    ("gahb-sweep plan demo learning_rate=nan", "finite number"),
    ("gahb-sweep plan demo batch_size=-1", "at least 1"),
    ("gahb-sweep plan demo compile=yes", "true or false"),
    ("gahb-sweep plan demo subset=C", "one of A, B"),
    ("gahb-sweep plan demo resolution=18 blocks=2", "multiples of 4"),
    ("gahb-sweep plan demo resolution=100000", "at most 4096"),
    ("gahb-sweep plan demo blocks=10000000", "at most 12"),
    ("gahb-sweep plan demo architecture=bf_cnn layers=1e9", "at most 4096"),
    ("gahb-sweep plan demo architecture=resnet", "did you mean 'unet'"),
    ("gahb-sweep plan demo alpha=0", "alpha"),
    (f"gahb-sweep plan demo n_train={','.join(map(str, range(1, 6000)))}", "at most 10000"),
    ("gahb-sweep calibrate resolution=17", "multiples of"),
    ("gahb-sweep calibrate precision=float16", "must be one of"),
    ("gahb-sweep calibrate dataset=disks", "does not apply to a calibration"),
    ("gahb-sweep calibrate architecture=unet width=4096 resolution=512", "GB of memory"),
    ("gahb-sweep data disks n_train=1", "resolution"),
    ("gahb-sweep data disks n_train=1,2 resolution=8", "one value"),
    ("gahb-sweep data disks n_train=1 resolution=8 seed=1", "does not apply to a data set"),
    ("gahb-sweep data disks n_train=1 resolution=8 blocks=1", "does not apply"),
    ("gahb-sweep data disks n_train=1e11 resolution=64", "are free"),
    # files of images
    (READS.format("/no/such/place"), "no such file or folder"),
    (READS.format("~nobody-of-that-name/x"), "no such file or folder"),
    (READS.format("x" * 5000), "no such file or folder"),
    (READS.format("http://127.0.0.1/x.zip"), "no such file or folder"),
    (READS.format("/dev/zero"), "neither a file nor a folder"),
    # checkpoints of others
    (IMPORTS.format("/no/such/file.pt"), "no file"),
    (IMPORTS.format("''"), "no file"),
    # records and storages
    ("gahb-sweep status --record ftp://x", "give sqlite:///FILE"),
    ("gahb-sweep status --record mlruns", "give sqlite:///FILE"),
    ("gahb-sweep status --record http://", "give sqlite:///FILE"),
    ("gahb-sweep status --record http://127.0.0.1:99999", "out of range"),
    ("gahb-sweep status --record http://127.0.0.1:9", "refused"),
    ("gahb-sweep status --record postgresql://127.0.0.1:9/x", "refused"),
    ("gahb-sweep status --record sqlite:///", "no file"),
    ("gahb-sweep launch demo --record sqlite:////no/such/folder/r.db", "no folder /no/such/folder"),
    # runs that will not do
    ("gahb-analyze pair 16x16-N1-A 16x16-N1-C", "no trial '16x16-N1-C'"),
    ("gahb-analyze pair 16x16-N1-A 16x16-N1-A", "1 common images"),
    ("gahb-analyze trajectories 16x16-N1-A 16x16-N64-A", "1 common images"),
]

FILES: list[tuple[str, str, Callable[[Path], object]]] = [
    # files of images
    (READS, "no such file or folder", loop),
    (READS, "holds no image", folder),
    (READS, "neither a folder, a .zip", file("empty.zip")),
    (READS, "neither a folder, a .zip", file("cut.zip", zip_of(a_png=png())[:-30])),
    (READS, "the zip cannot be read", file("x.zip", zip_of(a_png=png()).replace(b"PK\1\2", b"PK\0\0"))),
    (READS, "holds no image", file("text.zip", zip_of(a_txt=b"hello"))),
    (READS, "a.png cannot be decoded", file("x.zip", zip_of(a_png=png()).replace(b"IDAT", b"JDAT"))),
    (LAUNCHES, "000003.jpg", damaged_zip),
    (LAUNCHES, "two disjoint subsets", file("two.npy", npy(PIXELS[:2]))),
    (READS, "two disjoint subsets", file("two.npy", npy(PIXELS[:2]))),
    (PREPARES, "two disjoint subsets", file("two.npy", npy(PIXELS[:2]))),
    (READS, "not a .npy array", file("empty.npy")),
    (READS, "not a .npy array", file("cut.npy", npy(PIXELS)[:-1])),
    (READS, "not a .npy array", file("zip.npy", zip_of(a_npy=npy(PIXELS)))),
    (READS, "not a .npy array", lambda here: folder(here).rename(here / "folder.npy")),
    (READS, "needs uint8", file("f.npy", npy(PIXELS.astype(float)))),
    (READS, "needs uint8", file("f.npy", npy(PIXELS[:0]))),
    (READS, "not a .npy array", file("x.npy", npy_header(HEADER.format(1 << 60)))),
    (READS, "not a .npy array", file("x.npy", npy_header(HEADER.format(-1)))),
    (READS, "not a .npy array", file("x.npy", npy_header("__import__('os').abort()"))),
    (PREPARES, "only 1 pixels wide", file("pixels.npy", npy(PIXELS[:, :1, :1]))),
    (READS, r"\x1b[2J.png has a letter", folder_of("\x1b[2J.png", b"")),
    (READS, "no.png cannot be decoded", folder_of("no.png", b"")),
    (READS, "cut.png cannot be decoded", folder_of("cut.png", png()[:-60])),
    (READS, r"two\nlines.png has a letter", folder_of("two\nlines.png", b"")),
    (READS, "cannot be printed", folder_of("\udcff.png", png())),
    (READS, "x.jpg cannot be decoded", file("x.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")),
    (READS, "data.mdb cannot be read", folder_of("data.mdb", b"no database")),
    (READS, "data.mdb is cut off", cut_lmdb),
    (PREPARES, "LSUN's crop takes", lmdb_of),
    ("gahb-sweep plan demo dataset=ray base={}", "base=", folder),
    # checkpoints of others
    (IMPORTS, "no file", folder),
    (IMPORTS, "no checkpoint", file("empty.pt")),
    (IMPORTS, "no checkpoint", file("text.pt", "root:x:0:0:root:/root:/bin/bash\n")),
    (IMPORTS, "no checkpoint", file("cut.pt", b"PK\3\4" + bytes(100))),
    (IMPORTS, "none of UNet", file("x.safetensors", struct.pack("<Q", 2) + b"{}")),
    (IMPORTS, "none of UNet", checkpoint({})),
    (IMPORTS, "no state dict", checkpoint([1, 2])),
    (IMPORTS, "no state dict", checkpoint({"w": torch.ones(2).to_sparse()})),
    (IMPORTS, "names more numbers", checkpoint({"w": torch.ones(1).expand(1 << 40)})),
    (IMPORTS, "is expected", checkpoint({key: tensor for key, tensor in UNET.items() if "gammas" not in key})),
    (IMPORTS + " --resolution 41", "multiples of", checkpoint(UNET)),
    (IMPORTS + " --as 16x16-N1-A", "already", checkpoint(UNET)),
    (IMPORTS + " --first-relu", "for BF_CNN only", checkpoint(UNET)),
    # records and storages
    ("gahb-sweep status --record sqlite:///{}", "no file", folder),
    ("gahb-sweep status --record sqlite:///{}", "not a database", file("r.db", "hello")),
    ("gahb-sweep status --record sqlite:///{}", "something else", other_database),
    ("gahb-analyze pairs tiny --record sqlite:///{}", "no sweep 'tiny'", lambda here: here / "new.db"),
    ("gahb-sweep data disks resolution=8 n_train=1 --storage {}", "is no folder", file("file")),
    ("gahb-sweep plan demo --storage {}/below", "is no folder", file("file")),
    (COMPARES + " --storage {}", "name their storage with --storage", folder),
]  # fmt: skip

DAMAGE: list[tuple[str, str, Callable[[Place], object]]] = [
    # runs that will not do
    (COMPARES, "is failed, not finished", state("FAILED")),
    (COMPARES, "is running, not finished", state("RUNNING")),
    ("gahb-analyze basis 16x16-N1-A", "is interrupted, not finished", state("KILLED")),
    ("gahb-analyze curves tiny", "has finished yet", lambda place: place.execute("UPDATE runs SET status = 'FAILED'")),
    ("gahb-analyze pair 16x16-N1-A {} --force", "16 and 40 pixels a side", imported),
    ("gahb-analyze theory {}", "was imported", imported),
    ("gahb-analyze basis {}", "--images-of", imported),
    # artifacts and prepared images that were changed
    (COMPARES, "weights.safetensors cannot be read", spoilt("weights.safetensors", lambda content: content[:-100])),
    (COMPARES, "weights.safetensors cannot be read", spoilt("weights.safetensors", lambda content: b"")),
    (COMPARES, "weights.safetensors cannot be read", weights_gone),
    (COMPARES, "is expected", other_weights),
    (COMPARES, "card.json cannot be read", spoilt("card.json", lambda content: content[:-9])),
    (COMPARES, "card.json cannot be read", spoilt("card.json", lambda content: "[" * 100_000)),
    (COMPARES, "card.json cannot be read", spoilt("card.json", lambda content: "[]")),
    (COMPARES, "card.json cannot be read", card(data_hash=None)),
    (COMPARES, "no hash of a data set", card(data_hash="../../data")),
    (COMPARES, "hash differs", card(subset_hash="0" * 16)),
    (COMPARES, "unknown architecture", card_trial(architecture="resnet")),
    (COMPARES, "is expected", card_trial(width=4096)),
    (COMPARES, "n_train='1': must be a whole number", card_trial(n_train="1")),
    (COMPARES, "two disjoint subsets", card_trial(n_train=10**9)),
    (COMPARES, "a trial needs resolution", card_trial(resolution=None)),
    (COMPARES, "another kind of model", card(trial=None, architecture=SMALL, resolution=16)),
    (COMPARES, "cannot be read", manifest(count=None)),
    (COMPARES, "cannot be read", manifest(count="../../x")),
    (COMPARES, "cannot be read", manifest(count=10**6)),
    (COMPARES, "not hold what its manifest says", manifest(recipe={"resolution": 8})),
    (COMPARES, "cannot be read", cut_images),
    ("gahb-analyze curves tiny", "no PSNR curve", spoilt("psnr_curve.csv", lambda content: "a,b\n1,2\n")),
    ("gahb-analyze curves tiny", "no PSNR curve", spoilt("psnr_curve.csv", lambda content: b"\xff\xfe\x00")),
]  # fmt: skip


def numbered(cases: Sequence[tuple[str, ...]]) -> list[str]:
    return [f"{i} {case[0][:60]}" for i, case in enumerate(cases)]


@pytest.fixture(scope="module")
def spare(finished: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A copy of the finished sweep that no test means to change."""
    return copy(finished, tmp_path_factory.mktemp("spare") / "copied")


@pytest.mark.parametrize(("words", "message"), WORDS, ids=numbered(WORDS))
def test_words(words: str, message: str, command: Command, spare: Place) -> None:
    check(command, spare, words, message)


@pytest.mark.parametrize(("words", "message", "make"), FILES, ids=numbered(FILES))
def test_files(
    words: str, message: str, make: Callable[[Path], object], command: Command, spare: Place, tmp_path: Path
) -> None:
    check(command, spare, words.replace("{}", shlex.quote(str(make(tmp_path)))), message)


@pytest.mark.parametrize(("words", "message", "damage"), DAMAGE, ids=numbered(DAMAGE))
def test_damage(words: str, message: str, damage: Callable[[Place], object], command: Command, copied: Place) -> None:
    check(command, copied, words.replace("{}", str(damage(copied))), message)


def check(command: Command, place: Place, words: str, message: str) -> None:
    """The words end in one line with the message, and write nothing."""
    name, *arguments = shlex.split(words)
    options = dict(zip(place.flags[::2], place.flags[1::2], strict=True))
    for flag in takes(arguments):
        if flag not in arguments:
            arguments += [flag, options[flag]]
    before = files(place.folder) | files(Path())
    ended = command(name, *arguments)
    assert ended.code == 2 and ended.out == "", ended
    lines = [line for line in ended.err.splitlines() if not line.startswith(("reading ", "synthesising "))]
    assert len(lines) == 1 and lines[0].startswith(f"{name}: ") and message in lines[0], ended.err
    assert files(place.folder) | files(Path()) == before


def takes(arguments: list[str]) -> list[str]:
    """The options of places that a command has."""
    if arguments[:1] in ([], ["lunch"], ["list"]):
        return []
    return ["--storage"] if arguments[0] == "data" else ["--record", "--storage"]


def files(place: Path) -> dict[str, bytes]:
    """Every file below with its content, but for locks and what is kept of a source's bytes, their hash."""
    kept = [path for path in place.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {str(path): path.read_bytes() for path in kept if "fingerprints" not in path.parts}
