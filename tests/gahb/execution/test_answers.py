"""Answers beside trials: real children of a finished sweep, and launches that ask for them."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from gahb.execution.answers import Answers, as_they_come, step_aside
from gahb.threads import beside
from gahb.tracking import lookup
from gahb.tracking.run import Kind
from tests.helpers import TINY, Ended, Place, copy

FOUND = r"cosine \d\.\d\d, excess -?\d\.\d\d"


def wait_for(there: Callable[[], object]) -> None:
    until = time.monotonic() + 300
    while not there():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_finished_pairs_are_compared_one_by_one_and_an_interruption_leaves_nothing_half_done(copied: Place) -> None:
    said: list[str] = []
    answers = Answers("tiny", copied.record, copied.store, said.append)
    with beside(answers.compare()), contextlib.closing(answers):
        wait_for(lambda: answers.process)
        first = answers.process
        wait_for(lambda: answers.process is not first)
    assert answers.process is not None and answers.process.returncode not in (None, 0)
    assert len(said) == 1 and re.fullmatch(f"pair 16x16-N1: {FOUND}", said[0])
    (analysis,) = copied.record.runs("pair")
    names = [run.name for run in copied.record.by_id(analysis.links)]
    assert analysis.state == "finished" and sorted(names) == ["16x16-N1-A", "16x16-N1-B"]
    mean = {key: analysis.metrics[f"{key}_mean"] for key in ("cosine", "excess")}
    assert said[0].endswith(f"cosine {mean['cosine']:.2f}, excess {mean['excess']:.2f}")


def test_what_was_answered_with_the_same_settings_is_not_asked_again(
    command: Callable[..., Ended], copied: Place
) -> None:
    def next_name() -> str | None:
        found = Answers("tiny", copied.record, copied.store, print).next_pair()
        return found and found[0]

    pair = ("gahb-analyze", "pair", "16x16-N1-A", "16x16-N1-B", *copied.flags)
    assert command(*pair, "--samples", "3").code == 0 and next_name() == "16x16-N1"
    assert command(*pair).code == 0 and next_name() == "16x16-N64"
    copied.execute("UPDATE runs SET status = 'RUNNING' WHERE name = ?", "16x16-N64-B")
    assert next_name() is None


def test_a_comparison_that_fails_is_one_line_and_an_error_leaves_no_report(copied: Place) -> None:
    copied.artifact("16x16-N1-B", "card.json").write_text("[]")
    said: list[str] = []
    with pytest.raises(ValueError), as_they_come("tiny", copied.record, copied.store, None, said.append):
        wait_for(lambda: said)
        raise ValueError
    (line,) = said
    assert line.startswith("pair 16x16-N1 could not be compared: gahb-analyze: ") and "card.json cannot be read" in line
    assert copied.record.runs("pair", "report") == []


@pytest.mark.skipif(sys.platform != "linux", reason="another system has the lowest priority alone")
def test_a_child_runs_only_when_a_core_is_idle() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        step_aside(process.pid)
        assert os.sched_getscheduler(process.pid) == os.SCHED_IDLE
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == 19


def sweep_process(place: Place, *words: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", "from gahb_sweeps.cli import main; main()", *words, *place.flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def launch_of(images: int, *words: str) -> list[str]:
    return ["launch", "demo", *(f"{key}={value}" for key, value in {**TINY, "images": images}.items()), *words]


@pytest.mark.slow
def test_a_launch_answers_its_pairs_and_reports(place: Place) -> None:
    words = launch_of(3200, "n_train=1,4", "--as", "mine", "--report", "--json")
    process = sweep_process(place, *words)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert [row["state"] for row in json.loads(out)["trials"]] == ["finished"] * 4
    for name in ("16x16-N1", "16x16-N4"):
        assert len(re.findall(rf"pair {name}: {FOUND}$", err, re.MULTILINE)) == 1, err
    (page,) = re.findall(r"page: (\S+/report\.html)$", err, re.MULTILINE)
    assert (place.folder / page).exists()
    kinds = [run.kind for run in lookup.analyses(place.record, "mine")]
    assert kinds.count("pairs") == kinds.count("report") == 1
    process = sweep_process(place, *words)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0 and "pair 16x16" not in err
    again = [run.kind for run in lookup.analyses(place.record, "mine")]
    assert sorted(again) == sorted([*kinds, "report"]), "nothing but the page is made again"


@pytest.mark.slow
def test_an_interrupted_launch_takes_its_child_along_and_goes_on_at_retry(finished: Place, place: Place) -> None:
    copied = copy(finished, place.folder / "copied")
    process = sweep_process(copied, *launch_of(10**7, "n_train=2", "--as", "tiny", "--report"))

    def compared() -> int:
        assert process.poll() is None, process.communicate()
        return len([run for run in copied.record.runs("pair") if run.state == "finished"])

    wait_for(compared)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130 and re.search(f"pair 16x16-N1: {FOUND}", err), err
    assert {run.state for run in copied.record.runs("pair")} == {"finished"}
    copied.execute("UPDATE runs SET status = 'FAILED' WHERE name = '16x16-N64-A and 16x16-N64-B'")  # if it is there
    states = {run.name: run.state for run in copied.record.runs(Kind.TRIAL, sweep="tiny")}
    assert states["16x16-N2-A"] == states["16x16-N2-B"] == "interrupted"

    process = sweep_process(copied, "retry", "tiny", "--report")
    wait_for(lambda: compared() == 2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130 and "16x16-N1:" not in err, err
