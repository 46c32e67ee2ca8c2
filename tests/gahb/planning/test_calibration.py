import json
import time
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from gahb.denoising import noise
from gahb.errors import UserError
from gahb.models.architectures import ARCHITECTURES, Architecture
from gahb.planning import calibration
from gahb.planning.calibration import Device, Rate, devices, ladder, measure
from gahb.tracking.run import Kind, Run
from gahb.training import cost, step
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
    slow = [Rate(trial(n_train=n), 90.0, "runs") for n in range(200, 209)]
    assert replace(device, rates=[*known, *slow]).seconds(trial(n_train=50)) == (
        90.0 * cost.images(trial(n_train=50)),
        "runs",
    )


def test_runs_of_too_few_shapes_tell_of_the_arithmetic_alone() -> None:
    known, new = (trial(batch_size=b, blocks=2, resolution=r) for b, r in ((32, 24), (512, 48)))
    device = Device("x", [Rate(known, 2.0, "runs"), Rate(replace(known, n_train=9), 2.0, "runs")])
    seconds, source = device.seconds(new) or (0, "")
    assert source == "runs"
    assert seconds == pytest.approx(4 * 2.0 * cost.images(new), rel=0.02)


def run(trial: Trial, name: str, **changes: str) -> Run:
    tags = {"gahb.kind": "trial", "gahb.device": name, "gahb.share": "0.25", "gahb.trial": json.dumps(trial.flat())}
    return Run(name, "0", name, "finished", {**tags, **changes}, {}, {"images_per_second": 50.0}, "")


def test_time_of_a_shared_device_counts_in_part_and_past_plans_are_held_to_it() -> None:
    shared = run(trial(), "gpu", **{"gahb.planned_seconds": "10000"})
    assert calibration.device_seconds(shared) == 0.25 * 10**6 / 50
    assert calibration.past_plans([shared, run(trial(), "gpu")]) == [0.5]
    assert [device.name for device in devices([shared, run(trial(), "another")])] == ["another", "gpu"]
    assert devices([shared])[0].seconds(trial()) == (pytest.approx(5000), "runs")


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_every_architecture_has_a_ladder_of_distinct_labels(name: str) -> None:
    rungs = ladder({"architecture": [name]}, CPU)
    assert {rung.architecture.name for rung in rungs} == {name}
    assert {rung.precision for rung in rungs} == {"float32", "tf32", "bfloat16"}
    assert len({calibration.label(rung) for rung in rungs}) == len(rungs)


def test_rungs_that_are_not_on_the_ladder_have_sizes_that_the_architecture_takes() -> None:
    def sizes(**overrides: Any) -> list[tuple[int, int]]:
        found = ladder({"architecture": ["transformer"], "precision": ["float32"], **overrides}, CPU)
        return [(rung.dataset.resolution, rung.batch_size) for rung in found]

    assert sizes() == [(16, 32), (20, 64), (40, 16)]
    assert sizes(patch=[8, 10]) == [(40, 16), (40, 16)]
    assert sizes(patch=[14]) == [(28, 64), (42, 16)]
    assert sizes(resolution=[24], batch_size=[4]) == [(24, 4)]
    with pytest.raises(UserError, match="takes multiples of 200 only"):
        sizes(patch=[200])
    both = ladder({"architecture": ["unet", "transformer"]}, CPU)
    assert [rung for rung in both if rung.architecture.name == "unet"] == ladder({"architecture": ["unet"]}, CPU)


@dataclass(frozen=True)
class Widthless(Architecture):
    """Layers without a width."""

    name = "widthless"
    layers: int = 3
    gated: bool = False

    def build(self) -> torch.nn.Module:
        raise NotImplementedError


def test_labels_name_the_width_and_what_is_unusual() -> None:
    labels = [calibration.label(rung) for rung in ladder({"precision": ["float32"]}, CPU)]
    assert labels == [
        "unet 16x16 width16 batch32 float32",
        "unet 20x20 width64 batch64 float32",
        "unet 40x40 width64 batch16 float32",
        "bf_cnn 40x40 width64 batch8 float32",
        "unet 80x80 width64 batch4 float32",
    ]
    assert calibration.label(trial(blocks=1, compile=True)) == "unet 24x24 width64 batch512 float32 compiled"
    assert calibration.label(trial(blocks=2)) == "unet 24x24 blocks2 width64 batch512 float32"
    usual = trial()
    assert calibration.label(replace(usual, architecture=Widthless())) == "widthless 24x24 batch512 float32"
    unusual = replace(usual, architecture=Widthless(layers=5, gated=True))
    assert calibration.label(unusual) == "widthless 24x24 layers5 gated batch512 float32"


def test_other_runs_tell_nothing_of_a_device() -> None:
    known = run(trial(), "gpu")
    for kind in ("import", "pairs"):
        other = run(trial(), "another", **{"gahb.kind": kind})
        assert devices([known, other]) == devices([known])


def test_what_is_measured_is_the_time_of_a_step_alone() -> None:
    rung = trial(resolution=16, width=8, batch_size=32)
    net, optimizer = step.start(rung, CPU)
    images = torch.randint(0, 256, (rung.n_train, 1, 16, 16), dtype=torch.uint8)

    def steps(count: int) -> float:
        begun = time.process_time()
        for number in range(count):
            noisy, target, _ = noise.noisy_batch(images, 32, noise.generator("batch", 0, "A", number))
            step.training_step(step.squared_error, net, optimizer, noisy, target, "float32")
        return time.process_time() - begun

    steps(3)
    assert measure(rung, CPU, seconds=0.3).seconds == pytest.approx(steps(30) / 30 / 32, rel=0.5)


def test_measure_and_keep(place: Place) -> None:
    one = {"architecture": "unet", "resolution": 16, "width": 4, "batch_size": 64}
    rungs = ladder({**one, "precision": ["float32", "bfloat16"]}, CPU)
    assert len(rungs) == 2
    _, rates = calibration.calibrate(rungs, CPU, place.writer, lambda line: None)
    (device,) = devices(place.record.runs(*calibration.SPEED))
    assert list(device.rates) == rates and calibration.known(place.record) == device
    assert place.record.runs(Kind.TRIAL) == []
