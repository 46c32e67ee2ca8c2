"""The table of a sweep's trials, from a real record."""

import json
import re
import time
from dataclasses import replace

import pytest
from rich.console import Console

from gahb.execution import live
from gahb.execution.live import Board
from gahb.storage import leases
from gahb.tracking.run import Kind, Tag
from gahb.trial import Trial
from tests.helpers import TINY, Ended, Place, finish, new_trial

NAMES = ("done", "quick", "slow [bold]-learning_rate0.001", "waiting", "broken")
SLOW = NAMES[2]


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    """One trial of each state: of two that run, one is half as fast."""
    place = Place(tmp_path_factory.mktemp("board"))
    with leases.heartbeat(place.store) as launch_id:
        runs = {name: new_trial(place, name, f"{number:012x}") for number, name in enumerate(NAMES)}
        for name, run_id in runs.items():
            images = {SLOW: 4000}.get(name, 2000)
            trial = {**Trial.of({**TINY, "n_train": 1}).flat(), "images": images}
            place.writer.tag(run_id, {Tag.LAUNCH: launch_id, Tag.TRIAL: json.dumps(trial)})
        finish(place, runs["done"])
        for name, progress in (("quick", "1000:100.000"), (SLOW, "500:50.000")):
            place.writer.start(runs[name])
            place.writer.tag(runs[name], {Tag.PROGRESS: progress})
        place.writer.log_metrics(runs["quick"], {"images_seen": 512, "train_psnr": 21, "test_psnr": 18, "psnr_gap": 3})
        place.writer.fail(runs["broken"], "the loss was nan after 7 of 9 steps\x1b[2J")
        board = Board("s", lambda: place.record.runs(Kind.TRIAL), place.store)
        board.read()
    return board


def drawn(board: Board, width: int, height: int = 40) -> list[str]:
    console = Console(width=width, height=height, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(board.draw(console))
    return capture.get().splitlines()


def test_states_and_times_left(board: Board) -> None:
    states = {trial.run.name: trial.state for trial in board.trials}
    assert states == dict(zip(NAMES, ("finished", "running", "running", "scheduled", "failed"), strict=True))
    assert {t.run.name: t.left for t in board.trials if t.left} == {"quick": 10.0, SLOW: 70.0}
    assert board.left() == 70.0, "longer than the images left, 6500, at 150 a second"
    assert board.unfinished
    assert board.summary() == "5 trials: 1 finished, 2 running, 1 scheduled, 1 failed; about 70 s left"


@pytest.mark.parametrize("width", [120, 80, 60, 40])
def test_the_table_fits_and_shows_names_as_they_are(board: Board, width: int) -> None:
    lines = drawn(board, width)
    assert max(map(len, lines)) <= width and len(lines) == 5
    assert lines[2].startswith("quick") and "1k / 2k" in lines[2] and "3.00" in lines[2]
    assert lines[2].count("━") == (live.BAR / 2 if width >= 100 else 0), "the empty part of a bar without colour"
    assert ("21.00" in lines[2]) == (width >= 80)
    assert lines[3].startswith(SLOW if width >= 80 else "slow [bold]") and lines[3].split()[-2:] == ["70", "s"]
    assert lines[4].startswith("broken failed: the loss")
    assert "\x1b" not in "".join(lines)


def test_where_rows_do_not_fit_it_says_so(board: Board) -> None:
    assert "and 1 more that run" in drawn(board, 80, height=7)


def test_where_no_table_can_be_drawn_a_line_a_minute_says_how_far_trials_are(
    board: Board, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = f"quick 1,000 of 2,000 images, {SLOW} 500 of 4,000 images"
    assert board.line() == f"2 running, 1 scheduled, 1 failed; {far}; about 70 s left"
    monkeypatch.setattr(live, "LINE_SECONDS", 0.01)
    said = list[str]()
    with leases.heartbeat(place.store) as launch_id:
        place.writer.tag(new_trial(place), {Tag.LAUNCH: launch_id})
        with live.shown(Board("s", lambda: place.record.runs(Kind.TRIAL), place.store), said.append):
            until = time.monotonic() + 30
            while not said and time.monotonic() < until:
                time.sleep(0.01)
    assert said[0] == "1 scheduled"


def test_of_a_trial_that_is_at_its_end_nothing_is_left(board: Board) -> None:
    (quick,) = (trial for trial in board.trials if trial.run.name == "quick")
    beyond = replace(quick, run=replace(quick.run, tags={**quick.run.tags, Tag.PROGRESS: "2016:100.000"}))
    assert beyond.run.images_seen == 2016 and beyond.left == 0
    assert replace(beyond.run, state="interrupted").images_seen == 2016


def test_status_watches_until_nothing_runs_a_line_a_change(place: Place, command, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(live.time, "sleep", lambda seconds: finish(place, run_id))
    with leases.heartbeat(place.store) as launch_id:
        run_id = new_trial(place)
        place.writer.tag(run_id, {Tag.LAUNCH: launch_id, Tag.PROGRESS: "4800:10.000"})
        place.writer.start(run_id)
        ended: Ended = command("gahb-sweep", "status", "s", "--watch", "--json", *place.flags)
    lines = ["16x16-N1-A running: 4.8k of 9.6k images", "16x16-N1-A finished: PSNR gap 20.00 dB"]
    assert ended.err.splitlines() == lines
    (row,) = ended.json["trials"]
    assert row["state"] == "finished" and not re.search("running", ended.out)


def test_who_leaves_a_view_interrupts_nothing(place: Place, command, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(live.time, "sleep", interrupt)
    with leases.heartbeat(place.store) as launch_id:
        place.writer.tag(new_trial(place), {Tag.LAUNCH: launch_id})
        ended: Ended = command("gahb-sweep", "status", "s", "--watch", *place.flags)
    assert (ended.code, ended.out, ended.err) == (0, "", "16x16-N1-A scheduled\n")
