"""What several tests use: a tiny trial, a record beside a storage, processes, weights as the authors published them."""

import contextlib
import fcntl
import functools
import json
import os
import pty
import re
import shutil
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gahb_analysis.models import TrialModel, load_trial
from torch import Tensor

from gahb.execution.analysis import AnalysisContext
from gahb.execution.launch import LaunchOptions, launch
from gahb.storage.local import Folder
from gahb.tracking import client, lookup
from gahb.tracking.record import Record
from gahb.tracking.record_writer import RecordWriter
from gahb.tracking.run import PSNRS
from gahb.trial import Trial

TINY = {
    "dataset": "c_alpha",
    "resolution": 16,
    "width": 8,
    "n_test": 32,
    "batch_size": 32,
    "images": 32 * 300,
    "learning_rate": 2e-3,
    "schedule": "cosine",
}
"""A trial that trains in two seconds, long enough to memorise one image."""

TRIAL_TAGS = {
    "gahb.kind": "trial",
    "gahb.trial": json.dumps(Trial.of({**TINY, "n_train": 1}).flat()),
    "gahb.data_hash": "0123456789abcdef",
    "gahb.subset": "A",
}
"""What every trial's run has, besides its signature and its sweep."""


@functools.cache
def empty_record() -> bytes:
    """The database of a record that has nothing yet, which MLflow takes a second to make."""
    with tempfile.TemporaryDirectory() as folder:
        client.connect(f"sqlite:///{folder}/record.db", retry=False)
        return Path(folder, "record.db").read_bytes()


@dataclass(frozen=True)
class Place:
    """A record and a storage. The record is there once `writer` or `launch` is used."""

    folder: Path

    @property
    def storage(self) -> Path:
        return self.folder / "storage"

    @property
    def store(self) -> Folder:
        return Folder(self.storage)

    @property
    def record(self) -> Record:
        return Record(f"sqlite:///{self.folder / 'record.db'}", self.store.url)

    @property
    def writer(self) -> RecordWriter:
        self._make_record()
        return RecordWriter(self.record.uri, self.store.url)

    @property
    def flags(self) -> list[str]:
        return ["--record", self.record.uri, "--storage", str(self.storage)]

    @property
    def context(self) -> AnalysisContext:
        return AnalysisContext(self.record.uri, self.store, torch.device("cpu"))

    def execute(self, statement: str, *values: Any) -> None:
        """Change the record's database behind MLflow's back."""
        with contextlib.closing(sqlite3.connect(self.folder / "record.db")) as database, database:
            database.execute(statement, values)

    def artifact(self, run: str, file: str) -> Path:
        """An artifact of a run."""
        return self.record.artifacts(lookup.find(self.record, run).run_id) / file

    def model(self, name: str) -> TrialModel:
        """The model of a finished trial."""
        return load_trial(self.context, lookup.find(self.record, name))

    def launch(
        self, trials: list[Trial], sweep: str = "tiny", say: Callable[[str], None] = lambda line: None, **options: Any
    ) -> list[dict[str, Any]]:
        self._make_record()
        chosen = LaunchOptions(**options)
        return launch(trials, sweep, storage=self.store, record=self.record, options=chosen, say=say)

    def _make_record(self) -> None:
        with contextlib.suppress(FileExistsError), (self.folder / "record.db").open("xb") as file:
            file.write(empty_record())


def copy(finished: Place, folder: Path) -> Place:
    """A copy of a record and its storage that knows nothing of where it was, nor of what other tests asked of it."""
    place = Place(folder)
    shutil.copytree(finished.folder, place.folder, ignore=shutil.ignore_patterns("*.lock"))
    for column in ("runs.artifact_uri", "experiments.artifact_location"):
        table, _, name = column.partition(".")
        place.execute(f"UPDATE {table} SET {name} = replace({name}, ?, ?)", str(finished.folder), str(place.folder))
    analyses = "SELECT experiment_id FROM experiments WHERE name LIKE '%-analysis'"
    place.execute(f"UPDATE runs SET lifecycle_stage = 'deleted' WHERE experiment_id IN ({analyses})")
    place.execute("DELETE FROM tags WHERE key LIKE 'gahb.asked.%'")
    for table in ("metrics", "latest_metrics"):
        place.execute(f"DELETE FROM {table} WHERE key IN ('by_n/excess', 'by_n/cosine')")
    return place


def new_trial(place: Place, name: str = "16x16-N1-A", signature: str = "abcdefabcdef", sweep: str = "s") -> str:
    """A scheduled trial in the record; its run id."""
    tags = {**TRIAL_TAGS, "gahb.signature": signature, f"gahb.sweep.{sweep}": "true"}
    return place.writer.create(sweep, name, params={"width": 8}, tags=tags, dataset=("set", "123", "/x"))


def finish(place: Place, run_id: str) -> None:
    """Finish a trial, as if it had been trained."""
    place.writer.log_metrics(run_id, dict.fromkeys(PSNRS, 20.0))
    place.writer.finish(run_id)


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nothing listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class Terminal:
    """A process in a terminal of its own, 80 columns wide; a context that ends it. What it writes is in `shown`, and
    Ctrl-C reaches its whole group."""

    def __init__(self, words: list[str], **variables: str) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        here = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "COLUMNS")}
        code = (
            "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *words],
            env={**here, "TERM": "xterm-256color", **variables},
            start_new_session=True,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        self.shown = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.end()
        os.close(self._ours)

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the other end is closed
            while read := os.read(self._ours, 4096):
                self.shown += read.decode(errors="replace")

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def wait_for(self, pattern: str, seconds: float = 180) -> str:
        """What matches, once it has been shown."""
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.shown)):
            assert time.monotonic() < end and self._reader.is_alive(), self.shown
            time.sleep(0.05)
        return found[0]

    def end(self, seconds: float = 180) -> int:
        """The exit status, once it has ended."""
        status = self.process.wait(seconds)
        self._reader.join()
        return status


@contextlib.contextmanager
def process(words: list[str], answers: str, env: Mapping[str, str]) -> Iterator[None]:
    """A process group that lives as long as the block, once its address answers."""
    running = subprocess.Popen(words, env={**os.environ, **env}, stdout=-3, stderr=-3, start_new_session=True)
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(answers).close()
                break
            except urllib.error.HTTPError:  # who goes there?
                break
            except OSError:
                time.sleep(0.5)
        yield
    finally:
        os.killpg(running.pid, 9)
        running.wait()


Weights = dict[str, Tensor]


def randn(*shape: int) -> Tensor:
    """Normal weights of a size that keeps activations near 1."""
    return (
        torch.randn(*shape, dtype=torch.float32)
        / (shape[-1] * shape[-2] * max(shape[1] if len(shape) > 1 else 1, 1)) ** 0.5
    )


def norm(channels: int, name: str) -> Weights:
    """A normalisation without bias, as the authors' files have it."""
    return {f"{name}.running_sd": torch.rand(1, channels, 1, 1) + 0.5, f"{name}.gammas": torch.randn(1, channels, 1, 1)}


def unet(blocks: int, width: int) -> Weights:
    """The weights of a published UNet, by the authors' names."""
    torch.manual_seed(0)
    w: Weights = {}

    def convolutions(name: str, inputs: int, outputs: int, first: int = 0) -> None:
        for i in range(2):
            w[f"{name}.{first + 3 * i}.weight"] = randn(outputs, inputs if i == 0 else outputs, 3, 3)
            w.update(norm(outputs, f"{name}.{first + 3 * i + 1}"))

    w["encoder.0.0.weight"], w["encoder.0.2.weight"] = randn(width, 1, 3, 3), randn(width, width, 3, 3)
    w.update(norm(width, "encoder.0.3"))
    for b in range(1, blocks):
        convolutions(f"encoder.{b}", width * 2 ** (b - 1), width * 2**b)
    convolutions("mid_block", width * 2 ** (blocks - 1), width * 2**blocks)
    for b in range(blocks - 1, -1, -1):
        c = width * 2**b
        w[f"upsample.{b}.weight"] = randn(2 * c, c, 2, 2)
        if b:
            convolutions(f"decoder.{b}", 2 * c, c)
    w["decoder.0.0.weight"], w["decoder.0.3.weight"] = randn(width, 2 * width, 3, 3), randn(1, width, 3, 3)
    w.update(norm(width, "decoder.0.1"))
    return w


def bf_cnn(width: int, wide: set[int], layers: int = 21) -> Weights:
    """The weights of a published BF_CNN or BF_CNN_RF, whose layers in `wide` see 3×3 pixels and the others one."""
    torch.manual_seed(0)
    w = {"conv_layers.0.weight": randn(width, 1, 3, 3)}
    for layer in range(1, layers - 1):
        side = 3 if layer in wide else 1
        w[f"conv_layers.{layer}.weight"] = randn(width, width, side, side)
        w.update(norm(width, f"BN_layers.{layer - 1}"))
    return {**w, f"conv_layers.{layers - 1}.weight": randn(1, width, 3, 3)}


def dncnn(width: int, layers: int = 20) -> Weights:
    """The weights of a published DnCNN."""
    torch.manual_seed(0)
    w = {"first_layer.weight": randn(width, 1, 3, 3), "last_layer.weight": randn(1, width, 3, 3)}
    for i in range(layers - 2):
        w[f"hidden_layer_list.{i}.weight"] = randn(width, width, 3, 3)
        name = f"bn_layer_list.{i}"
        w |= {f"{name}.weight": torch.randn(width), f"{name}.bias": torch.zeros(width)}
        w |= {f"{name}.running_mean": torch.zeros(width), f"{name}.running_var": torch.rand(width) * 1e-4}
        w[f"{name}.num_batches_tracked"] = torch.tensor(0)
    return w


class Towards(torch.nn.Module):
    """A "network" whose denoiser returns the given image (1, H, W) whatever it sees."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.image = image

    def forward(self, y: Tensor) -> Tensor:
        return y - self.image


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return os.mkdir, (self.mark,)


GUEST = Path(__file__).parent / "guest" / "gahb_guest"


def file_of(folder: Path, *parts: str, name: str = "guest.py") -> Path:
    """A plugin file made of parts of the package in tests/guest, whose classes it registers, and of more code."""
    code = ["from gahb import plugins"]
    for part in parts:
        code.append((GUEST / f"{part}.py").read_text() if (GUEST / f"{part}.py").exists() else part)
    if "dataset" in parts:
        code.append("plugins.register_dataset(Checkers)")
    if "architecture" in parts:
        code.append("plugins.register_architecture(Plain)")
    (folder / name).write_text("\n\n".join(code))
    return folder / name
