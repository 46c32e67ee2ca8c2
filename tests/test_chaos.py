import dataclasses
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from gahb_sweeps import demo

from chaos.hosts import PROGRAMS, missing
from chaos.sweep import KEYS, NAME, ONCE, SHORT, Comparison, Outcome, Result, compare
from gahb.grids import parse_overrides
from tests.helpers import Place


@pytest.mark.slow
def test_three_rounds_of_failures_change_nothing(ray_here: None, place: Place) -> None:
    """Two hosts with addresses of their own, an MLflow server, and a failure in each of three rounds."""
    if reason := missing(PROGRAMS):
        pytest.skip(reason)
    place.launch(demo.trials(parse_overrides(SHORT.settings)), NAME)
    command = [sys.executable, "-m", "chaos", "--short"]
    command += ["--rounds", "3", "--each", "1", "--seed", "25", "--outage", "3", "--against"]
    root = Path(__file__).parents[1]
    ended = subprocess.run([*command, place.record.uri], cwd=root, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    rows = [line.split(" | ") for line in ended.stdout.splitlines()[2:] if line.startswith("| ")]
    assert [row[4:8] for row in rows] == [["0"] * 4] * 3, ended.stdout
    assert all(row[2] != "none" for row in rows)


def test_what_is_wrong_with_a_sweep_is_counted() -> None:
    history = [(32, 1.0), (64, 2.0), (128, 3.0)]
    good = Outcome(
        "abc", {**dict.fromkeys(KEYS, history), **dict.fromkeys(ONCE, history[-1:])}, {"width": "8"}, "host1"
    )

    def found(**changes: list[tuple[int, float]]) -> Result:
        return Result(
            {"a": dataclasses.replace(good, histories={**good.histories, **changes})}, Counter(), Counter("a")
        )

    expected = {"a": good}
    assert compare(expected, found()) == Comparison(lost=0, doubled=0, gaps=0, unequal=0)
    assert compare(expected, Result()) == Comparison(lost=1, doubled=0, gaps=0, unequal=0)
    assert compare(expected, found(loss=[*history, history[1]])) == Comparison(0, doubled=1, gaps=0, unequal=0)
    assert compare(expected, found(loss=history[:2])) == Comparison(0, 0, gaps=1, unequal=0)
    assert compare(expected, found(loss=[*history[:2], (128, 4.0)])) == Comparison(0, 0, gaps=1, unequal=0)
    assert compare(expected, found(images_per_second=[])) == Comparison(0, 0, gaps=1, unequal=0)
    assert compare(expected, found(images_per_second=history[:2])) == Comparison(0, doubled=1, gaps=0, unequal=0)
    other = Result({"a": dataclasses.replace(good, weights="xyz")}, Counter(), Counter("aa"))
    assert compare(expected, other) == Comparison(0, doubled=1, gaps=0, unequal=1)
