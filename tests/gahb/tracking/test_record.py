import multiprocessing
from pathlib import Path

import pytest

from gahb.errors import UserError
from gahb.tracking import lookup
from gahb.tracking.record import Record
from gahb.tracking.record_writer import RecordWriter
from gahb.tracking.run import PSNRS, Kind, Tag, member_of
from tests.helpers import TRIAL_TAGS, Place, finish, new_trial


def test_a_run_goes_from_scheduled_to_finished(place: Place, tmp_path: Path) -> None:
    run_id = new_trial(place)
    record = place.record
    assert lookup.find(record, run_id).state == "scheduled"
    place.writer.start(run_id)
    assert lookup.find(record, run_id).state == "running"
    place.writer.log_metrics(run_id, dict.fromkeys(PSNRS, 64))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").write_text("kept")
    place.writer.add_artifacts(run_id, tmp_path / "out")
    place.writer.finish(run_id)
    run = lookup.finished_trial(record, run_id)
    assert run.params == {"width": "8"} and run.sweeps == ["s"] and run.metrics["psnr_gap"] == 64
    assert (record.artifacts(run_id) / "a.txt").read_text() == "kept"


def test_of_several_runs_of_a_trial_the_finished_one_counts_or_else_the_oldest(place: Place) -> None:
    first, second, third = (new_trial(place, f"run{i}") for i in range(3))
    other = new_trial(place, "other", "111111111111")
    assert {
        key: run.run_id
        for key, run in place.record.by_signature(["abcdefabcdef", "111111111111", "222222222222"]).items()
    } == {
        "abcdefabcdef": first,
        "111111111111": other,
    }
    place.writer.fail(first, "the loss was nan")
    assert place.record.by_signature(["abcdefabcdef"])["abcdefabcdef"].run_id == first
    finish(place, third)
    assert place.record.by_signature(["abcdefabcdef"])["abcdefabcdef"].run_id == third
    finish(place, second)
    assert place.record.by_signature(["abcdefabcdef"])["abcdefabcdef"].run_id == second


def test_runs_are_those_of_the_kinds_and_the_sweep_asked_for(place: Place) -> None:
    tags: dict[str, str] = {Tag.KIND: "pairs", **member_of("s")}
    analysis = place.writer.create("s-analysis", "pairs", params={}, tags=tags)
    one, two = new_trial(place, "one"), new_trial(place, "two", "111111111111", sweep="other")

    def ids(*kinds: str, sweep: str | None = None) -> list[str]:
        return [run.run_id for run in place.record.runs(*kinds, sweep=sweep)]

    assert ids() == ids("pairs", Kind.TRIAL) == [analysis, one, two]
    assert ids(Kind.TRIAL, "pairs") == [one, two, analysis]
    assert ids(sweep="s") == [analysis, one] and ids(Kind.TRIAL, sweep="other") == [two] and ids(Kind.IMPORT) == []


def test_a_run_made_by_hand_is_none_of_ours(place: Place) -> None:
    one = new_trial(place)
    place.writer.client.create_run("0")
    assert [run.run_id for run in place.record.runs()] == [one]


def test_a_failure_keeps_its_reason(place: Place) -> None:
    run_id = new_trial(place)
    place.writer.fail(run_id, "the loss was nan")
    run = lookup.find(place.record, run_id)
    assert run.state == "failed" and run.tags["gahb.reason"] == "the loss was nan"


def test_looking_does_not_make_a_record(place: Place) -> None:
    assert place.record.runs(Kind.TRIAL) == [] and place.record.by_signature(["abcdefabcdef"]) == {}
    assert not list(place.folder.glob("record.db*"))


def test_a_record_out_of_reach(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder"):
        RecordWriter(f"sqlite:///{tmp_path}/nowhere/r.db", tmp_path.as_uri()).create("s", "run", params={}, tags={})
    (tmp_path / "r.db").write_text("this is no database, and longer than a header" * 10)
    with pytest.raises(UserError, match="cannot be used"):
        Record(f"sqlite:///{tmp_path}/r.db", tmp_path.as_uri()).runs(Kind.TRIAL)


def _touch(folder: Path, number: int) -> None:
    place, tags = Place(folder), {**TRIAL_TAGS, "gahb.signature": f"{number:012x}", **member_of("s")}
    RecordWriter(place.record.uri, place.store.url).create("s", f"run{number}", params={}, tags=tags)


@pytest.mark.slow
def test_many_processes_may_touch_a_fresh_record_at_once(place: Place) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_touch, args=(place.folder, i)) for i in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert len(place.record.runs(Kind.TRIAL)) == 6
