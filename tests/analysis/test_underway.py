"""Analyses of a sweep that is under way: what they find, and what they say is missing."""

from collections.abc import Callable

import pytest

from gahb.storage import leases
from gahb.tracking import lookup
from gahb.tracking.run import Tag
from tests.helpers import TINY, Ended, Place

SEEN = 4800
"""Images that a trial which is not finished has seen, of TINY's."""


@pytest.fixture
def underway(copied: Place) -> Place:
    """The sweep "tiny", of which 16x16-N64-B is half-way."""
    begin(copied, "16x16-N64-B")
    return copied


def begin(place: Place, name: str) -> None:
    """Let a finished trial be one that has seen SEEN images."""
    run_id = lookup.find(place.record, name).run_id
    place.execute("UPDATE runs SET status = 'RUNNING' WHERE run_uuid = ?", run_id)
    seen = "UPDATE latest_metrics SET value = ? WHERE run_uuid = ? AND key = 'images_seen'"
    place.execute(seen, SEEN, run_id)
    place.execute("DELETE FROM tags WHERE run_uuid = ? AND key = ?", run_id, str(Tag.PROGRESS))


def test_what_is_finished_is_shown_and_what_is_not_is_told(command: Callable[..., Ended], underway: Place) -> None:
    row = {"name": "16x16-N64-B", "state": "interrupted", "images_seen": SEEN, "images": TINY["images"]}
    line = "1 of 4 trials are not finished: 16x16-N64-B interrupted (50 %)"
    few = ("--samples", "4")

    scaling = command("gahb-analyze", "scaling", "tiny", "--json", *underway.flags).json
    assert [(row["n_train"], row["trials"]) for row in scaling["scaling"]] == [(1, 2), (64, 1)]
    assert scaling["unfinished"] == [row]
    memorization = command("gahb-analyze", "memorization", "tiny", *few, "--json", *underway.flags).json
    assert [row["name"] for row in memorization["memorization"]] == ["16x16-N64-A"]
    assert memorization["unfinished"] == [row]

    ended = command("gahb-analyze", "pairs", "tiny", *few, *underway.flags)
    assert ended.code == 0 and "16x16-N1 " in ended.out and "16x16-N64 " not in ended.out.split("\n", 2)[2][:40]
    assert ended.out.splitlines()[-2:] == [line, "1 of 2 pairs are missing: 16x16-N64 (only A is finished)"]
    assert command("gahb-analyze", "scaling", "tiny", *underway.flags).out.splitlines()[-1] == line


def test_a_trial_whose_launch_lives_is_running(command: Callable[..., Ended], underway: Place) -> None:
    with leases.heartbeat(underway.store) as launch_id:
        run_id = lookup.find(underway.record, "16x16-N64-B").run_id
        underway.writer.tag(run_id, {Tag.LAUNCH: launch_id})
        assert "16x16-N64-B running (50 %)" in command("gahb-analyze", "scaling", "tiny", *underway.flags).out
        underway.writer.schedule(run_id)
        for words in (("gahb-analyze", "scaling", "tiny"), ("gahb-sweep", "status", "tiny")):
            out = command(*words, *underway.flags).out
            assert "scheduled" in out and "running" not in out
            assert '"state": "running"' in command(*words, "--json", *underway.flags).out


def test_where_nothing_is_finished_it_says_how_far_it_is(command: Callable[..., Ended], underway: Place) -> None:
    begin(underway, "16x16-N1-B")
    ended = command("gahb-analyze", "pairs", "tiny", *underway.flags)
    assert ended.code == 2 and ended.err.count("\n") == 1
    assert "no two finished trials of this sweep differ in their subset alone; 2 of 4 trials are not" in ended.err
    for name in ("16x16-N1-A", "16x16-N64-A"):
        begin(underway, name)
    for kind in ("scaling", "pairs", "memorization", "report"):
        ended = command("gahb-analyze", kind, "tiny", *underway.flags)
        assert ended.code == 2 and ended.err.count("\n") == 1
        assert "no trial of sweep 'tiny' has finished yet: 16x16-N1-A interrupted (50 %), 16x16-N1-B" in ended.err


def test_of_a_finished_sweep_nothing_is_missing(command: Callable[..., Ended], finished: Place) -> None:
    ended = command("gahb-analyze", "scaling", "tiny", "--json", *finished.flags)
    assert ended.json["unfinished"] == []
    assert "not finished" not in command("gahb-analyze", "scaling", "tiny", *finished.flags).out
