import json
from dataclasses import replace

import pytest

from gahb.grids import grid
from gahb.models.architectures import UNet
from gahb.planning.calibration import Device, Rate
from gahb.planning.plan import Planned, plan
from gahb.storage import leases
from gahb.tracking.run import Tag, member_of
from gahb.training import cost
from gahb.trial import Trial
from tests.helpers import TINY, TRIAL_TAGS, Place, finish

TRIAL = Trial.of({**TINY, "n_train": 1})


def scheduled(place: Place, trial: Trial = TRIAL, launch_id: str = "") -> str:
    """A run of the trial, made by a launch; its id."""
    signature = trial.signature(trial.dataset.hash(place.store))
    names: dict[str, str] = {Tag.SIGNATURE: signature, Tag.TRIAL: json.dumps(trial.flat())}
    tags = {**TRIAL_TAGS, **names, **member_of("tiny"), Tag.LAUNCH: launch_id}
    return place.writer.create("tiny", "as it was called", params={}, tags=tags)


def planned(place: Place, trial: Trial = TRIAL, device: Device | None = None) -> Planned:
    (only,) = plan([trial], place.store, place.record, lambda trial: device)
    return only


def test_a_trial_is_running_while_the_launch_that_holds_it_is_alive(place: Place) -> None:
    assert planned(place).state == "new" and planned(place).run is None
    with leases.heartbeat(place.store) as launch_id:
        run_id = scheduled(place, launch_id=launch_id)
        for start, shown in ((lambda: None, "scheduled"), (lambda: place.writer.start(run_id), "running")):
            start()
            assert planned(place).state == "running" and not planned(place).to_train
            assert planned(place).shown_state == shown
    assert planned(place).state == "interrupted" and planned(place).to_train
    place.writer.fail(run_id, "the loss was nan")
    assert planned(place).state == "failed" and planned(place).to_train
    finish(place, run_id)
    assert planned(place).state == "finished" and not planned(place).to_train


def test_what_a_trial_has_seen_is_done_whatever_became_of_its_launch(place: Place) -> None:
    assert planned(place).share_left == 1
    run_id = scheduled(place)
    place.writer.tag(run_id, {Tag.PROGRESS: f"{TRIAL.images // 4}:10.000"})
    assert planned(place).state == "interrupted" and planned(place).share_left == 0.75
    finish(place, run_id)
    assert planned(place).share_left == 0


def test_a_trial_keeps_its_run_and_name_in_every_sweep(place: Place) -> None:
    other = replace(TRIAL, n_train=2)
    run_id = scheduled(place)
    known, new = plan([TRIAL, other], place.store, place.record)
    assert known.run and known.run.run_id == run_id and known.name == "as it was called"
    assert new.run is None and new.name == "16x16-N2-A"


def test_hours_are_those_of_the_device(place: Place) -> None:
    assert planned(place).row()["hours"] is None
    device = Device("a core", [Rate(TRIAL, 1e-3, "runs")])
    row = planned(place, device=device).row()
    assert row["hours"] == pytest.approx(1e-3 * cost.images(TRIAL) / 3600) and row["hours_from"] == "runs"
    assert planned(place, Trial.of({**TINY, "n_train": 1, "compile": True}), device).seconds is None


def test_plan_rows_have_what_others_script_against(place: Place) -> None:
    rows = [p.row() for p in plan(grid({**TINY, "n_train": (1, 10)}), place.store, place.record)]
    assert [row["state"] for row in rows] == ["new", "new"]
    assert rows[0].keys() == {
        "name", "signature", "dataset", "resolution", "n_train", "subset", "architecture", "parameters",
        "receptive_field", "images", "images_reused", "flops", "hours", "hours_from", "memory", "state",
    }  # fmt: skip
    assert rows[0]["flops"] == 3 * cost.forward_flops(UNet(blocks=1, width=8), 16) * 32 * 300
    assert not place.storage.exists()
