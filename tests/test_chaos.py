import subprocess
import sys
from pathlib import Path

import pytest

from chaos.hosts import PROGRAMS, missing


def test_three_rounds_of_failures_change_nothing() -> None:
    """Two hosts with addresses of their own, an MLflow server, and two failures in each of three rounds."""
    if reason := missing(PROGRAMS):
        pytest.skip(reason)
    command = [sys.executable, "-m", "chaos", "--short", "--rounds", "3", "--each", "2", "--outage", "3"]
    ended = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=400)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    rows = [line.split(" | ") for line in ended.stdout.splitlines()[2:] if line.startswith("| ")]
    assert len(rows) == 4
    assert all(row[4:8] == ["0"] * 4 for row in rows), ended.stdout
    assert all(row[2] != "none" for row in rows[1:])
