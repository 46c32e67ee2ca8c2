"""The recipes of CONTRIBUTING.md, run as they are written."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from gahb_analysis import catalog as analyses
from gahb_sweeps import catalog as sweeps

from gahb.tracking import lookup
from gahb.tracking.record import Record

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text().partition("\n## Recipes\n")[2]
RECIPES = dict(re.findall(r"^### (.*?)\n(.*?)(?=^### |\Z)", TEXT, re.MULTILINE | re.DOTALL))
BIN = Path(sys.executable).parent

assert sweeps and analyses


def blocks(recipe: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", RECIPES[recipe], re.MULTILINE | re.DOTALL)


def test_there_are_five_and_each_is_short() -> None:
    assert list(RECIPES) == ["An architecture", "A data set", "A sweep", "An analysis", "A training option"]
    for name in RECIPES:
        code = [
            line
            for language in ("python", "diff", "bash")
            for block in blocks(name, language)
            for line in block.split("\n")
        ]
        assert 3 < len(code) < 30, (name, len(code))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recipes")


def follow(recipe: str, folder: Path, **environment: str) -> str:
    """Write a recipe's files and type its commands; what they print."""
    for block in blocks(recipe, "python"):
        name = block.split("\n")[0].removeprefix("# ")
        (folder / name).write_text(block)
    out = ""
    for command in "".join(blocks(recipe, "bash")).splitlines():
        path = f"{BIN}:{os.environ['PATH']}"
        ended = subprocess.run(
            command,
            shell=True,
            cwd=folder,
            env={**os.environ, "PATH": path, **environment},
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 0, ended.stderr
        out += ended.stdout
    return out


def test_an_architecture(folder: Path) -> None:
    lines = follow("An architecture", folder).splitlines()[1:]
    weights = 8 * (1 + 8 + 1) * 9
    assert len(lines) == 12 and all(line.split()[1:3] == ["plain", str(weights)] for line in lines)


def test_a_data_set(folder: Path) -> None:
    out = follow("A data set", folder)
    assert re.search(r"^count +712$", out, re.MULTILINE) and re.search(r"^law +stripes$", out, re.MULTILINE)


def test_a_sweep_and_an_analysis_of_it(folder: Path) -> None:
    assert follow("A sweep", folder).count("finished") == 4
    assert re.search(r"^flatness\n +\d+\.\d\d$", follow("An analysis", folder), re.MULTILINE)


def test_a_training_option(folder: Path) -> None:
    tree = folder / "tree"
    for package in ("gahb", "sweeps", "analysis"):
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
    (change,) = blocks("A training option", "diff")
    subprocess.run(["git", "apply", "--unidiff-zero", "-"], input=change, cwd=tree, text=True, check=True)
    follow("A training option", folder, PYTHONPATH=str(tree))
    plain, decayed = lookup.finished_trials(
        Record(f"sqlite:///{folder}/mlflow.db", (folder / "gahb-storage").as_uri()), "decay"
    )
    assert "weight_decay" not in plain.params and decayed.params["weight_decay"] == "0.1"
    assert plain.metrics["train_psnr"] != decayed.metrics["train_psnr"]
