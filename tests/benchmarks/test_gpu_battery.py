"""The battery of `make gpu`: its dry run on a CPU, and what becomes of a check that fails."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks.gpu import __main__ as battery
from benchmarks.gpu import part
from benchmarks.gpu.checks import Checks, Found, Skipped, at_most

ROOT = Path(__file__).parents[2]
NOT_NEEDED = ("ray", "mlflow", "typer", "pandas", "matplotlib", "skimage", "boto3", "lmdb", "sqlalchemy")


@pytest.mark.slow
def test_a_dry_run_makes_every_check_with_little_installed(tmp_path: Path) -> None:
    """Without Ray, MLflow and others, on which a machine that is lent need not have."""
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    for name in NOT_NEEDED:
        (blocked / f"{name}.py").write_text(f"raise ImportError('{name} is not installed here')")
    env = {**os.environ, "PYTHONPATH": str(blocked), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    before = {file: file.read_bytes() for file in (ROOT / "benchmarks").rglob("*.[mj]*") if file.is_file()}
    command = [sys.executable, "-m", "benchmarks.gpu", "--out", str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert {file: file.read_bytes() for file in before} == before
    written = (tmp_path / "GPU.md").read_text()
    assert written.count("\nDRY RUN at tiny sizes, without a GPU") == len(battery.PARTS)
    for name, (heading, _) in battery.PARTS.items():
        rows = json.loads((tmp_path / "results" / "gpu" / f"{name}.json").read_text())["rows"]
        assert f"## {heading}\n" in written and rows
        assert not any("left out" in row["found"] for row in rows)
    parity = json.loads((tmp_path / "results" / "gpu" / "parity.json").read_text())["rows"]
    errors = {row["what"]: float(row["found"].split()[1]) for row in parity if "gradients" in row["what"]}
    assert len(errors) == 9
    for what, error in errors.items():  # here both ways are this CPU; bfloat16 is compared with its float32
        assert error > 1e-4 if "bfloat16" in what else error == 0


def small_part() -> Checks:
    def divide() -> Found:
        return at_most(1 / 0, 1)

    def skip() -> Found:
        raise Skipped("nothing to see")

    yield "too much", lambda: at_most(2.0, 1.0)
    yield "an error", divide
    yield "not here", skip
    yield "enough", lambda: at_most(1.0, 1.0)
    raise OSError("the disk is full")


def rows_of(name: str, seconds: float, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, bool]]:
    module = ModuleType(f"benchmarks.gpu.{name}")
    module.checks = small_part  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    file = battery.results(folder, name)
    file.parent.mkdir(parents=True, exist_ok=True)
    with pytest.raises(SystemExit) as ended:
        part.main(name, seconds, file)
    rows = [(row["what"], row["found"], row["met"]) for row in json.loads(file.read_text())["rows"]]
    assert bool(ended.value.code) == any(met is False for _, _, met in rows)
    return rows


def test_a_check_that_fails_is_written_with_its_number_and_the_others_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert rows_of("memory", 60, tmp_path, monkeypatch) == [
        ("too much", "2", False),
        ("an error", "ZeroDivisionError: division by zero", False),
        ("not here", "skipped: nothing to see", None),
        ("enough", "1", True),
        ("the whole part", "OSError: the disk is full", False),
    ]
    assert rows_of("steps", -1, tmp_path, monkeypatch)[0][1].startswith("left out, and all after it")
    written = battery.report(tmp_path)  # of two parts that ran one after the other
    assert "- memory: too much: 2\n" in written and "| too much | 2 | ≤ 1 | **no** |" in written
    assert written.index("## Memory") < written.index("## Speed of training")


def test_a_part_that_hangs_or_dies_is_ended_and_said_to_have_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(battery, "GRACE", 0)
    monkeypatch.setitem(battery.PARTS, "parity", ("Parity", 0.2))
    (tmp_path / "results" / "gpu").mkdir(parents=True)
    assert not battery.run("parity", tmp_path)
    assert "| the whole part | ended after 0.2 s |  | **no** |" in (tmp_path / "GPU.md").read_text()


def test_an_unknown_part_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu", "parties"])
    with pytest.raises(SystemExit) as ended:
        battery.main()
    assert ended.value.code == 2
    assert "there is no part parties; there are parity, graph" in capsys.readouterr().err


def test_make_gpu_takes_the_python_of_the_venv_where_there_is_one(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)

    def command(*words: str) -> str:
        make = ["make", "--no-print-directory", "-n", "gpu", "PYTHON=python3", "PARTS=parity graph", *words]
        return subprocess.run(make, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    assert command() == "python3 -m benchmarks.gpu parity graph\n"
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "installed").touch()
    assert command() == ".venv/bin/python -m benchmarks.gpu parity graph\n"
    assert command("GPU_PYTHON=python3.12") == "python3.12 -m benchmarks.gpu parity graph\n"
