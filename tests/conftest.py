"""What the tests share: one local Ray for the session, one small finished sweep, and the two commands in-process."""

import contextlib
import importlib
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from gahb_analysis.models import TrialModel, load_trial

from gahb.execution.analysis import AnalysisContext
from gahb.execution.launch import LaunchOptions, launch
from gahb.grids import grid
from gahb.storage.local import Folder
from gahb.tracking import lookup
from gahb.tracking.record import Record
from gahb.tracking.record_writer import RecordWriter
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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest file first: where files run beside each other, it is not left over at the end."""
    items.sort(key=lambda item: item.path.name != "test_chaos.py")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """One thread, as trials have; results are compared bit for bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Defaults point into the test's folder, and nothing of the user's environment leaks in."""
    for key in ("MLFLOW_TRACKING_URI", "GAHB_STORAGE", "RAY_ADDRESS"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def ray_here() -> Iterator[None]:
    """A Ray of this machine's own, with two CPUs' worth of workers, for the whole session."""
    from gahb.execution import ray_cluster

    with ray_cluster.connected(None):
        yield


@dataclass(frozen=True)
class Place:
    """A record and a storage."""

    folder: Path

    @property
    def storage(self) -> Path:
        return self.folder / "storage"

    @property
    def store(self) -> Folder:
        return Folder(self.storage)

    @property
    def record(self) -> Record:
        return Record(f"sqlite:///{self.folder / 'record.db'}")

    @property
    def writer(self) -> RecordWriter:
        return RecordWriter(self.record.uri)

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
        chosen = LaunchOptions(**options)
        return launch(trials, sweep, storage=self.store, record=self.record, options=chosen, say=say)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture(scope="session")
def finished(ray_here: None, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A sweep "tiny" of N = 1 and 64, A and B, that has been trained. Not to be changed."""
    place = Place(tmp_path_factory.mktemp("finished"))
    place.launch(grid({**TINY, "n_train": (1, 64), "subset": ("A", "B")}))
    return place


@pytest.fixture
def copied(finished: Place, tmp_path: Path) -> Place:
    """A copy of the finished sweep, to be damaged."""
    return copy(finished, tmp_path / "copied")


def copy(finished: Place, folder: Path) -> Place:
    """A copy of a record and its storage that knows nothing of where it was."""
    place = Place(folder)
    shutil.copytree(finished.folder, place.folder, ignore=shutil.ignore_patterns("*.lock"))
    for column in ("runs.artifact_uri", "experiments.artifact_location"):
        table, _, name = column.partition(".")
        place.execute(f"UPDATE {table} SET {name} = replace({name}, ?, ?)", str(finished.folder), str(place.folder))
    return place


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Run `gahb-sweep` or `gahb-analyze` in this process."""

    def run(name: str, *arguments: str) -> Ended:
        module = importlib.import_module({"gahb-sweep": "gahb_sweeps.cli", "gahb-analyze": "gahb_analysis.cli"}[name])
        from gahb.cli import run as run_app

        capfd.readouterr()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", [name, *arguments])
            with pytest.raises(SystemExit) as ended:
                run_app(module.app, name)
        out, err = capfd.readouterr()
        code = ended.value.code
        return Ended(code if isinstance(code, int) else 0, out, err)

    return run


@pytest.fixture
def real_images() -> Path:
    """The folder of real images that `GAHB_TEST_DATA` names."""
    folder = os.environ.get("GAHB_TEST_DATA")
    if not folder:
        pytest.skip("GAHB_TEST_DATA names no folder of real images")
    return Path(folder)
