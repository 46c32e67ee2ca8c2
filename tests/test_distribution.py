"""The wheel in an environment that has the dependencies and no checkout; and workers that have not even the wheel."""

import json
import os
import shutil
import site
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import TINY, Place

ROOT = Path(__file__).parent.parent
SMALL = [f"{key}={value}" for key, value in {**TINY, "images": 320, "n_train": 1}.items()]


def environment(folder: Path) -> Path:
    """A virtual environment with this one's dependencies and without gahb; returns its bin folder."""
    venv.create(folder, with_pip=False, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    # a line of a .pth file adds a folder, but not what that folder's own .pth files add: no editable install
    (packages / "dependencies.pth").write_text("".join(f"{path}\n" for path in site.getsitepackages()))
    return folder / "bin"


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment's bin folder, where gahb cannot be imported."""
    bin = environment(tmp_path_factory.mktemp("bare") / "venv")
    code = "import torch, ray, mlflow; import gahb"
    ended = subprocess.run([bin / "python", "-c", code], capture_output=True, text=True, cwd=bin)
    assert "No module named 'gahb'" in ended.stderr
    return bin


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment's bin folder, where the wheel is installed."""
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"
    shutil.copytree(
        ROOT, source, ignore=shutil.ignore_patterns(".*", "*.egg-info", "build", "gahb-storage", "mlflow.db*")
    )
    bin = environment(folder / "venv")
    install(bin, source)
    shutil.rmtree(source)
    return bin


def install(bin: Path, source: Path) -> None:
    """Build the wheel of a source tree and install it in an environment."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, source], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        subprocess.run([*pip, "--python", bin / "python", "install", "--no-deps", wheel], check=True)


def run(bin: Path, *words: str | Path, **environment: str) -> str:
    """What a command of an environment prints, run where there is no checkout."""
    command = [bin / words[0], *words[1:]]
    ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=240)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_wheel_does_the_main_job(installed: Path, place: Place) -> None:
    assert "resolution_scaling" in run(installed, "gahb-sweep", "list")
    assert "finished" in run(installed, "gahb-sweep", "launch", "demo", *SMALL, *place.flags)
    assert "16x16-N1" in run(installed, "gahb-analyze", "pairs", "demo", "--samples", "2", *place.flags)
    assert "16×16" in run(installed, "gahb-analyze", "scaling", "demo", *place.flags)
    where = run(installed, "python", "-c", "import gahb, gahb_sweeps, gahb_analysis; print(gahb.__file__)")
    assert str(installed.parent) in where
    for common in ("sweeps", "analysis"):
        code = f"import importlib.util as u; assert u.find_spec({common!r}) is None"
        run(installed, "python", "-c", code)


@pytest.fixture
def cluster_without_gahb(bare: Path, tmp_path: Path) -> Iterator[str]:
    """The address of a Ray cluster whose nodes' Python has no gahb."""
    start = [bare / "python", "-m", "ray.scripts.scripts", "start", "--head", "--port=6399", "--num-cpus=2", "--block"]
    options = ["--include-dashboard=false", "--min-worker-port=23000", "--max-worker-port=23999"]
    process = subprocess.Popen(
        [*start, *options],
        env={**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "Ray runtime started" in line:
            break
    time.sleep(1)
    yield "127.0.0.1:6399"
    os.killpg(process.pid, 9)
    process.wait()
    process.stdout.close()


def test_workers_receive_the_code(installed: Path, cluster_without_gahb: str, place: Place) -> None:
    arguments = ("launch", "demo", *SMALL, "subset=A", "--address", cluster_without_gahb, *place.flags)
    assert "finished" in run(installed, "gahb-sweep", *arguments, RAY_AUTH_MODE="disabled")


def signatures(bin: Path, sweep: str, place: Place) -> list[str]:
    rows = json.loads(run(bin, "gahb-sweep", "plan", sweep, "--json", *place.flags))["trials"]
    return [row["signature"] for row in rows]


def guest(folder: Path, version: str) -> Path:
    """The source of a version of the guest package."""
    source = folder / f"guest-{version}"
    shutil.copytree(ROOT / "tests" / "guest", source)
    project = source / "pyproject.toml"
    project.write_text(project.read_text().replace('version = "1.0"', f'version = "{version}"'))
    return source


@pytest.mark.slow
def test_a_guest_package_is_trained_paired_and_reported_by_workers_that_have_none_of_it(
    installed: Path, cluster_without_gahb: str, place: Place, tmp_path: Path
) -> None:
    built_in = signatures(installed, "demo", place)
    install(installed, guest(tmp_path, "1.0"))
    first = signatures(installed, "checkers", place)
    assert signatures(installed, "demo", place) == built_in
    cluster = ("--address", cluster_without_gahb, *place.flags)
    launched = run(
        installed, "gahb-sweep", "launch", "checkers", "images=640", *cluster, "--json", RAY_AUTH_MODE="disabled"
    )
    assert [row["state"] for row in json.loads(launched)["trials"]] == ["finished"] * 4
    reported = run(installed, "gahb-analyze", "report", "checkers", *cluster, "--json", RAY_AUTH_MODE="disabled")
    assert {"pairs of checkers", "flatness of checkers"} <= set(json.loads(reported)["shown"])

    install(installed, guest(tmp_path, "1.1"))
    assert not set(first) & set(signatures(installed, "checkers", place))
    assert signatures(installed, "demo", place) == built_in

    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", installed / "python"]
    subprocess.run([*pip, "uninstall", "--yes", "gahb-guest"], check=True)
    assert signatures(installed, "demo", place) == built_in
    assert "finished" in run(installed, "gahb-sweep", "status", *place.flags)
    words = ["gahb-analyze", "pair", "12x12-N1-A", "12x12-N1-B", *place.flags]
    ended = subprocess.run([installed / words[0], *words[1:]], capture_output=True, text=True)
    assert ended.returncode == 2 and ended.stderr.splitlines()[-1].endswith("not here: pip install gahb-guest==1.0")
