import pytest

from gahb.errors import UserError
from gahb.tracking import lookup
from gahb.tracking.run import Kind, Tag, link, member_of
from tests.helpers import Place, finish, new_trial


def new_import(place: Place, name: str) -> str:
    """A finished imported model; its run id."""
    tags: dict[str, str] = {Tag.KIND: Kind.IMPORT, Tag.SIGNATURE: "feedfeedfeed", **member_of("imported")}
    run_id = place.writer.create("imported", name, params={}, tags=tags)
    place.writer.finish(run_id)
    return run_id


def test_a_run_is_found_by_id_prefix_signature_or_name(place: Place) -> None:
    one = new_trial(place, "16x16-N1-A", "111111111111")
    two = new_trial(place, "16x16-N1-B", "222222222222")
    for text in (one, one[:12], "16x16-N1-A", "111111111111", "1111111"):
        if not two.startswith(text):
            assert lookup.find(place.record, text).run_id == one
    with pytest.raises(UserError, match="no trial 'zzz'"):
        lookup.find(place.record, "zzz")
    new_trial(place, "16x16-N1-A", "333333333333", sweep="other")
    with pytest.raises(UserError, match=r"means 2 trials: .*s/16x16-N1-A.*other/16x16-N1-A.*; write SWEEP/NAME"):
        lookup.find(place.record, "16x16-N1-A")
    assert lookup.find(place.record, "s/16x16-N1-A").run_id == one
    with pytest.raises(UserError, match="no trial 's/16x16-N1-C'"):
        lookup.find(place.record, "s/16x16-N1-C")


def test_a_name_goes_before_a_prefix_and_many_matches_are_cut_short(place: Place) -> None:
    named = new_trial(place, "aaa0", "111111111111")
    for i in range(5):
        new_trial(place, f"other{i}", f"aaa{i}00000000")
    assert lookup.find(place.record, "aaa0").run_id == named
    with pytest.raises(
        UserError, match=r"means 5 trials: .*other0.*other3\), …; write SWEEP/NAME, or more of a run id"
    ):
        lookup.find(place.record, "aaa")


def test_an_unfinished_trial_has_no_weights(place: Place) -> None:
    run_id = new_trial(place)
    for finder in (lookup.finished_model, lookup.finished_trial):
        with pytest.raises(UserError, match=r"is scheduled, not finished; wait for it: .*gahb-sweep status --watch s$"):
            finder(place.record, run_id)
    place.writer.interrupt(run_id)
    with pytest.raises(UserError, match="is interrupted, not finished; launch its sweep again"):
        lookup.finished_model(place.record, run_id)
    with pytest.raises(UserError, match="no trial of sweep 's' has finished"):
        lookup.finished_trials(place.record, "s")
    with pytest.raises(UserError, match=r"no sweep 'S'.*\(it has: s\)"):
        lookup.finished_trials(place.record, "S")


def test_an_imported_model_has_weights_but_no_images_and_no_training(place: Place) -> None:
    run_id = new_import(place, "published")
    assert lookup.finished_model(place.record, "published").run_id == run_id
    with pytest.raises(UserError, match="nothing is known of the images"):
        lookup.finished_trial(place.record, "published")
    with pytest.raises(UserError, match="there is nothing to train"):
        lookup.sweep_or_trial(place.record, "published")


def test_a_sweep_is_meant_before_a_trial_and_holds_every_trial_that_belongs_to_it(place: Place) -> None:
    assert lookup.sweep_names(place.record) == []
    first = new_trial(place, "two", "111111111111", sweep="one")
    second = new_trial(place, "16x16-N1-B", "222222222222", sweep="two")
    place.writer.tag(first, member_of("two"))
    finish(place, second)
    new_import(place, "published")
    assert lookup.sweep_names(place.record) == ["one", "two"]
    for finder in (lookup.sweep_or_trial, lookup.sweep_trials):
        assert [run.run_id for run in finder(place.record, "two")] == [first, second]
    assert [run.run_id for run in lookup.finished_trials(place.record, "two")] == [second]
    assert [run.run_id for run in lookup.sweep_or_trial(place.record, "16x16-N1-B")] == [second]


def test_analyses_of_a_sweep_are_the_finished_runs_that_are_nothing_else(place: Place) -> None:
    trial = new_trial(place)
    finish(place, trial)
    made = []
    for kind, ends in (("pairs", True), ("scaling", False), ("scaling", True), (Kind.CALIBRATION, True)):
        tags: dict[str, str] = {Tag.KIND: kind, **member_of("s"), link(0): trial}
        run_id = place.writer.create("s-analysis", kind, params={}, tags=tags)
        if ends:
            place.writer.finish(run_id)
            made.append(run_id)
    found = lookup.analyses(place.record, "s")
    assert [run.run_id for run in found] == made[:2] and found[0].links == {trial}
    assert lookup.analyses(place.record, "t") == []
