import multiprocessing
from pathlib import Path

import pytest

from gahb.errors import UserError
from gahb.tracking import lookup
from gahb.tracking.record import Record
from gahb.tracking.run import Kind
from tests.helpers import Place, new_trial


def test_a_run_goes_from_scheduled_to_finished(place: Place, tmp_path: Path) -> None:
    run_id = new_trial(place)
    record = place.record
    assert lookup.find(record, run_id).state == "scheduled"
    place.writer.start(run_id)
    assert lookup.find(record, run_id).state == "running"
    place.writer.log_metrics(run_id, {"psnr_gap": 64})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").write_text("kept")
    place.writer.add_artifacts(run_id, tmp_path / "out")
    place.writer.finish(run_id)
    run = lookup.finished_trial(record, run_id)
    assert run.params == {"width": "8"} and run.sweeps == ["s"] and run.metrics["psnr_gap"] == 64
    assert (record.artifacts(run_id) / "a.txt").read_text() == "kept"


def test_a_run_is_found_by_id_prefix_signature_or_name(place: Place) -> None:
    one = new_trial(place, "16x16-N1-A", "111111111111")
    two = new_trial(place, "16x16-N1-B", "222222222222")
    for text in (one, one[:12], "16x16-N1-A", "111111111111", "1111111"):
        if not two.startswith(text):
            assert lookup.find(place.record, text).run_id == one
    assert place.record.by_signature()["222222222222"].run_id == two
    with pytest.raises(UserError, match="no trial 'zzz'"):
        lookup.find(place.record, "zzz")
    new_trial(place, "16x16-N1-A", "333333333333", sweep="other")
    with pytest.raises(UserError, match=r"means 2 trials: .*s 16x16-N1-A.*other 16x16-N1-A"):
        lookup.find(place.record, "16x16-N1-A")


def test_an_unfinished_trial_has_no_weights(place: Place) -> None:
    run_id = new_trial(place)
    with pytest.raises(UserError, match="is scheduled, not finished"):
        lookup.finished_trial(place.record, run_id)
    with pytest.raises(UserError, match="no trial of sweep 's' has finished"):
        lookup.finished_trials(place.record, "s")
    with pytest.raises(UserError, match=r"no sweep 'S'.*\(it has: s\)"):
        lookup.finished_trials(place.record, "S")


def test_a_failure_keeps_its_reason(place: Place) -> None:
    run_id = new_trial(place)
    place.writer.fail(run_id, "the loss was nan")
    run = lookup.find(place.record, run_id)
    assert run.state == "failed" and run.tags["gahb.reason"] == "the loss was nan"


def test_looking_does_not_make_a_record(place: Place) -> None:
    assert place.record.runs(Kind.TRIAL) == [] and place.record.by_signature() == {}
    assert not list(place.folder.glob("record.db*"))


def test_a_record_out_of_reach(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder"):
        new_trial(Place(tmp_path / "nowhere"))
    (tmp_path / "r.db").write_text("this is no database, and longer than a header" * 10)
    with pytest.raises(UserError, match="cannot be used"):
        Record(f"sqlite:///{tmp_path}/r.db").runs(Kind.TRIAL)


def _touch(folder: Path, number: int) -> None:
    new_trial(Place(folder), f"run{number}", f"{number:012x}")


@pytest.mark.slow
def test_many_processes_may_touch_a_fresh_record_at_once(place: Place) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_touch, args=(place.folder, i)) for i in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert len(place.record.runs(Kind.TRIAL)) == 6
