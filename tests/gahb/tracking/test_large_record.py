"""What is read of a record of many trials."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from mlflow import MlflowClient

from benchmarks import records
from gahb.errors import UserError
from gahb.planning import calibration
from gahb.planning.plan import plan, states_of
from gahb.storage.local import Folder
from gahb.tracking import lookup
from gahb.tracking.record import ONE_BY_ONE
from gahb.tracking.run import Kind, Tag
from tests.helpers import Place, new_trial

COUNT = 215


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("large"))
    records.fill(place.folder, COUNT)
    return place


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many runs each search has read."""
    seen: list[int] = []
    search = MlflowClient.search_runs

    def counted(*args: Any, **options: Any) -> Any:
        page = search(*args, **options)
        seen.append(len(page))
        return page

    monkeypatch.setattr(MlflowClient, "search_runs", counted)
    yield seen


def number(index: int) -> str:
    return f"{index:032x}"


def test_one_trial_is_read_where_one_is_meant(large: Place, read: list[int]) -> None:
    (run,) = large.record.by_id([number(7)])
    for text in (number(7), run.signature, "seed7", run.signature[:-1], number(7)[:-1]):
        read.clear()
        expected = number(7)
        if text == number(7)[:-1]:
            with pytest.raises(UserError, match="means 15 trials"):
                lookup.find(large.record, text)
            assert sum(read) == 15
        else:
            assert lookup.find(large.record, text).run_id == expected and sum(read) == 1


def test_a_sweep_is_read_alone(large: Place, read: list[int]) -> None:
    runs = large.record.runs(Kind.TRIAL, sweep="sweep1")
    assert [run.name for run in runs] == [f"seed{i}" for i in range(100, 200)] and read == [100]
    assert runs == [run for run in large.record.runs(Kind.TRIAL) if "sweep1" in run.sweeps]


def test_a_plan_reads_its_own_trials(large: Place, read: list[int]) -> None:
    planned = plan(records.trials(range(COUNT - 2, COUNT + 2)), large.store, large.record)
    assert [p.run.name if p.run else None for p in planned] == [f"seed{COUNT - 2}", f"seed{COUNT - 1}", None, None]
    assert sum(read) == 2


def test_many_trials_are_found_as_each_by_itself(large: Place, read: list[int]) -> None:
    signatures = [run.signature for run in large.record.runs(Kind.TRIAL)][: ONE_BY_ONE + 1]
    read.clear()
    together = large.record.by_signature([*signatures, "0" * 12])
    assert read == [COUNT]
    assert set(together) == set(signatures)
    assert all(large.record.by_signature([key]) == {key: together[key]} for key in signatures[::20])


def test_the_newest_trials_tell_the_speed_of_a_device(large: Place, read: list[int]) -> None:
    newest = large.record.newest(Kind.TRIAL, 3)
    assert [run.name for run in newest] == [f"seed{i}" for i in range(COUNT - 3, COUNT)]
    read.clear()
    device = calibration.known(large.record)
    assert device is not None and len(device.rates) == calibration.RECENT and read == [0, calibration.RECENT]
    assert device.rates[-1].trial.seed == COUNT - 1
    assert large.record.newest(Kind.TRIAL, 3, "another device") == large.record.newest(Kind.IMPORT, 3) == []


def test_pages_are_read_to_the_end(large: Place, read: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = large.record.runs(Kind.TRIAL)
    monkeypatch.setattr("gahb.tracking.record.PAGE", 50)
    monkeypatch.setattr("gahb.tracking.record.IDS", 50)
    assert large.record.runs(Kind.TRIAL) == whole and read == [COUNT, 50, 50, 50, 50, 15]
    assert {run.run_id for run in large.record.by_id([run.run_id for run in whole])} == {r.run_id for r in whole}


class Counted(Folder):
    """A storage that counts how often it is asked when a file was written."""

    asked: ClassVar[list[str]] = []

    def modified(self, name: str) -> float | None:
        self.asked.append(name)
        return super().modified(name)


def test_a_heartbeat_is_read_once_for_all_trials_of_a_launch(place: Place, tmp_path: Path) -> None:
    for i in range(3):
        place.writer.tag(new_trial(place, f"run{i}", f"{i}" * 12), {Tag.LAUNCH: "abcabcabcabc"})
    storage = Counted(tmp_path)
    states = states_of(place.record.runs(Kind.TRIAL), storage)
    assert list(states.values()) == ["interrupted"] * 3 and storage.asked == ["launches/abcabcabcabc"]


def test_whatever_a_user_writes_is_a_name_and_no_filter(place: Place) -> None:
    names = ["it's", 'a "name"', "back`tick", "back\\slash", "50%", "a b; --", "seed_", "größer"]
    made = {name: new_trial(place, name, f"{i:012x}") for i, name in enumerate(names)}
    for name, run_id in made.items():
        assert lookup.find(place.record, name).run_id == run_id
        assert place.record.runs(Kind.TRIAL, sweep=name) == []
    for text in ("", "%", "' OR '", "seedx", "SEED_", "00000000000_"):
        with pytest.raises(UserError, match="no trial"):
            lookup.find(place.record, text)
