"""The tests' fixtures: one local Ray for the session, one small finished sweep, and the two commands in-process."""

import importlib
import os
import signal
import uuid
from collections.abc import Callable, Iterator
from copy import copy as shallow
from pathlib import Path

import gahb_analysis.catalog
import gahb_sweeps.catalog
import pytest
import torch
from moto.server import ThreadedMotoServer

from gahb import registry
from gahb.grids import grid
from gahb.storage.base import Storage, storage_at
from tests.helpers import TINY, Ended, Place, copy

LONG = (
    "test_distribution.py",
    "test_recipes.py",
    "test_launch.py",
    "test_ray_jobs.py",
    "test_chaos.py",
    "test_gpu_battery.py",
    "test_intruders_record.py",
    "test_intruders.py",
    "test_intruders_files.py",
)


def pytest_configure() -> None:
    """An interrupt is an interrupt, also where the tests were started in the background, by a shell that ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: where files run beside each other, none is left over at the end."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """One thread, as trials have; results are compared bit for bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """What a test registers is gone after it; what is built in is there before."""
    assert gahb_analysis.catalog and gahb_sweeps.catalog
    groups = {name: (dict(group._things), group._installed) for name, group in registry.GROUPS.items()}
    keys, files = shallow(registry.KEYS.__dict__), dict(registry._files)
    owners, types = dict(registry.KEYS._owners), dict(registry.KEYS._types)
    yield
    for name, (things, installed) in groups.items():
        registry.GROUPS[name]._things, registry.GROUPS[name]._installed = things, installed
    registry.KEYS.__dict__.update({**keys, "_owners": owners, "_types": types})
    registry._files.clear()
    registry._files.update(files)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Defaults point into the test's folder, and nothing of the user's environment leaks in."""
    for key in ("MLFLOW_TRACKING_URI", "GAHB_STORAGE", "RAY_ADDRESS"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def ray_here() -> Iterator[None]:
    """A Ray of this machine's own, with two CPUs' worth of workers, for the whole session."""
    from gahb.execution import connection

    with connection.connected(None):
        yield


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


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A server that speaks S3, with one bucket."""
    import boto3

    from gahb.storage.s3 import _client

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_S3", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setattr("tempfile.tempdir", str(tmp_path_factory.mktemp("node")))
        boto3.client("s3").create_bucket(Bucket="lab")
        _client.cache_clear()  # that of another server
        yield
    server.stop()


@pytest.fixture(params=["folder", "bucket"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return storage_at(str(tmp_path / "storage"))
    request.getfixturevalue("s3")
    return storage_at(f"s3://lab/{uuid.uuid4().hex}/runs")


@pytest.fixture
def real_images() -> Path:
    """The folder of real images that `GAHB_TEST_DATA` names."""
    folder = os.environ.get("GAHB_TEST_DATA")
    if not folder:
        pytest.skip("GAHB_TEST_DATA names no folder of real images")
    return Path(folder)
