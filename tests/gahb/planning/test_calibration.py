import json

import pytest
import torch

from gahb.planning import calibration
from gahb.planning.calibration import Device, Rate, devices, ladder, measure
from gahb.tracking.run import Kind, Run
from gahb.training import cost
from gahb.trial import Trial
from tests.helpers import Place

CPU = torch.device("cpu")
COEFFICIENTS = (3e-5, 2e-10, 1e-11)


def of_law(trial: Trial, source: str = "calibration") -> Rate:
    """What a device takes that follows the law exactly."""
    layers = trial.architecture.counts(trial.dataset.resolution)
    flops = 3 * cost.forward_flops(trial.architecture, trial.dataset.resolution)
    work = (len(layers) / trial.batch_size, sum(layer.kept for layer in layers), flops)
    return Rate(trial, sum(c * w for c, w in zip(COEFFICIENTS, work, strict=True)), source)


def trial(**changes: object) -> Trial:
    return Trial.of({"dataset": "disks", "resolution": 24, "n_train": 8, "images": 10**6, **changes})


def test_a_device_that_follows_the_law_is_predicted_exactly() -> None:
    device = Device("x", [of_law(rung) for rung in ladder({}, CPU)])
    for new in (trial(width=32), trial(architecture="bf_cnn", layers=7), trial(resolution=160, precision="bfloat16")):
        seconds, source = device.seconds(new) or (0, "")
        assert source == "calibration"
        assert seconds == pytest.approx(of_law(new).seconds * cost.images(new), rel=1e-5)
    assert device.seconds(trial(compile=True)) is None
    assert 0 < (device.utilisation(trial(width=4, batch_size=1)) or 0) < (device.utilisation(trial()) or 0) <= 1


def test_finished_runs_know_better() -> None:
    known = [Rate(trial(n_train=n), seconds, "runs") for n, seconds in ((1, 2.0), (10, 3.0), (100, 9.0))]
    device = Device("x", [of_law(rung) for rung in ladder({}, CPU)] + known)
    assert device.seconds(trial(n_train=50)) == (3.0 * cost.images(trial(n_train=50)), "runs")
    assert (device.seconds(trial(width=32)) or (0, ""))[1] == "calibration"


def run(trial: Trial, name: str, **changes: str) -> Run:
    tags = {"gahb.kind": "trial", "gahb.device": name, "gahb.share": "0.25", "gahb.trial": json.dumps(trial.flat())}
    return Run(
        name, "0", name, "finished", {**tags, **changes}, {"images": str(trial.images)}, {"images_per_second": 50.0}
    )


def test_time_of_a_shared_device_counts_in_part_and_past_plans_are_held_to_it() -> None:
    shared = run(trial(), "gpu", **{"gahb.planned_seconds": "10000"})
    assert calibration.device_seconds(shared) == 0.25 * 10**6 / 50
    assert calibration.past_plans([shared, run(trial(), "gpu")]) == [0.5]
    assert [device.name for device in devices([shared, run(trial(), "another")])] == ["another", "gpu"]
    assert devices([shared])[0].seconds(trial()) == (pytest.approx(5000), "runs")


def test_measure_and_keep(place: Place) -> None:
    rungs = ladder({"architecture": "unet", "resolution": 16, "width": 4, "batch_size": 64}, CPU)
    assert len(rungs) == 2
    rate = measure(rungs[0], CPU, seconds=0.1)
    assert 1e-6 < rate.seconds < 1e-1
    _, rates = calibration.calibrate(rungs, CPU, place.record, place.store, lambda line: None)
    (device,) = devices(place.record.runs(*calibration.SPEED))
    assert list(device.rates) == rates and calibration.known(place.record) == device
    assert place.record.runs(Kind.TRIAL) == []
