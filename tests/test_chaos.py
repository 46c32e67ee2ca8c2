import subprocess
import sys
from pathlib import Path

import pytest
from gahb_sweeps import demo

from chaos.hosts import PROGRAMS, missing
from chaos.sweep import NAME, SHORT
from gahb.trial import parse_overrides
from tests.conftest import Place


def test_three_rounds_of_failures_change_nothing(ray_here: None, place: Place) -> None:
    """Two hosts with addresses of their own, an MLflow server, and two failures in each of three rounds."""
    if reason := missing(PROGRAMS):
        pytest.skip(reason)
    place.launch(demo.trials(parse_overrides(SHORT.settings)), NAME)
    command = [sys.executable, "-m", "chaos", "--short", "--rounds", "3", "--seed", "8", "--outage", "3", "--against"]
    root = Path(__file__).parents[1]
    ended = subprocess.run([*command, place.record.uri], cwd=root, capture_output=True, text=True, timeout=500)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    rows = [line.split(" | ") for line in ended.stdout.splitlines()[2:] if line.startswith("| ")]
    assert [row[4:8] for row in rows] == [["0"] * 4] * 3, ended.stdout
    assert all(row[2] != "none" for row in rows)
