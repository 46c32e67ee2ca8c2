"""How long training takes on a device: measured, kept in the record, and learned from finished runs.

A step on a batch of b images is taken to last

    t = launch · layers + traffic · b · (numbers kept for backward) + arithmetic · b · 3 · (forward FLOPs)

seconds, with three coefficients ≥ 0 for each precision, fitted to what was measured with the least relative error. A
shape that finished runs have trained takes what it took the last of them (the median of RECENT_OF_SHAPE). Runs of
fewer shapes than there are coefficients tell of the arithmetic alone.

Time is device time: seconds × the share of a GPU, or the number of cores, that a trial had.
"""

import contextlib
import json
import re
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from gahb import hardware
from gahb.errors import UserError
from gahb.grids import grid, union
from gahb.models.architectures import ARCHITECTURES
from gahb.tracking.run import Kind, Tag
from gahb.training import cost
from gahb.trial import PRECISIONS, Trial

if TYPE_CHECKING:
    import torch

    from gahb.tracking.record import Record
    from gahb.tracking.record_writer import RecordWriter
    from gahb.tracking.run import Run

EXPERIMENT = "calibration"

SPEED = (Kind.TRIAL, Kind.CALIBRATION)
"""The kinds of runs that tell how fast a device is."""

RECENT = 200
"""How many finished trials, the newest, are asked for a device's speed and for how far plans were off."""

RECENT_OF_SHAPE = 9
"""Of how many runs, the newest of a shape, the median is taken: a machine's other work comes and goes."""

LADDER: tuple[dict[str, Any], ...] = (
    {"architecture": "unet", "resolution": 16, "width": 16, "batch_size": 32},
    {"architecture": "unet", "resolution": 20, "batch_size": 64},
    {"architecture": "unet", "resolution": 40, "batch_size": 16},
    {"architecture": "bf_cnn", "resolution": 40, "batch_size": 8},
    {"architecture": "unet", "resolution": 80, "batch_size": 4},
)
"""What is measured on a CPU; on a GPU with batches of 512."""

GPU_BATCH = 512

WARM_UP = 3
"""Steps before those that are timed; the first may compile."""

GPU_STEPS = 200
"""Steps that are timed on a GPU, where a small one takes less time than the start and the end of a training."""

RUNGS = ((16, 32), (20, 64), (40, 16))
"""For an architecture that is not on the ladder: the least resolution of a rung, and its batch size on a CPU."""

LARGEST = 160
"""Pixels a side up to which a resolution is looked for that such an architecture takes."""

KEYS = {"architecture", "resolution", "batch_size", "precision", "compile"}
"""What a calibration may be told, besides the hyperparameters of architectures."""


@dataclass(frozen=True)
class Rate:
    """What training a trial took: device-seconds an image, and where that is known from, "runs" or "calibration"."""

    trial: Trial
    seconds: float
    source: str

    @property
    def flops(self) -> float:
        """FLOP/s of training."""
        return _flops(self.trial) / self.seconds


@dataclass(frozen=True)
class Device:
    """A kind of device with its rates.

    Args:
        name: as `hardware` gives it; a GPU, or a core of a CPU.
        rates: measured on it.
    """

    name: str
    rates: Sequence[Rate]

    def seconds(self, trial: Trial) -> tuple[float, str] | None:
        """Device-seconds of the whole training, and "runs" or "calibration"; None if nothing alike was measured."""
        own = [r.seconds for r in self.rates if r.source == "runs" and _shape(r.trial) == _shape(trial)]
        if own:
            return statistics.median(own[-RECENT_OF_SHAPE:]) * cost.images(trial), "runs"
        alike = self._alike(trial)
        if not alike:
            return None
        predicted = sum(c * w for c, w in zip(_fit(alike), _work(trial), strict=True))
        calibrated = any(r.source == "calibration" for r in alike)
        return predicted * cost.images(trial), "calibration" if calibrated else "runs"

    def utilisation(self, trial: Trial) -> float | None:
        """The trial's FLOP/s over the highest that was measured in its precision, in (0, 1]; None if not measured."""
        alike, found = [r.flops for r in self._alike(trial)], self.seconds(trial)
        return min(1.0, _flops(trial) * cost.images(trial) / found[0] / max(alike)) if alike and found else None

    def _alike(self, trial: Trial) -> list[Rate]:
        """The rates in the trial's arithmetic; for TF32, where there are none, in float32, which is never faster."""
        wanted = [_arithmetic(trial), *([("float32", trial.compile)] if trial.precision == "tf32" else [])]
        found = ([r for r in self.rates if _arithmetic(r.trial) == each] for each in wanted)
        return next(filter(None, found), [])


def ladder(overrides: Mapping[str, Any], device: "torch.device") -> list[Trial]:
    """The trials to measure: those of LADDER, or of an architecture that is not on it a few at sizes that it takes.

    Args:
        overrides: as for a sweep; `precision` is each unless some are given.
        device: where they are to be trained.

    Raises:
        UserError: an override that does not change how fast a step is, or a trial that does not fit in memory.
    """
    known = KEYS.union(*({field.name for field in fields(cls)} for cls in ARCHITECTURES.values()))
    if unfit := overrides.keys() - known:
        raise UserError(f"{min(unfit)} does not apply to a calibration")
    batch = {"batch_size": GPU_BATCH} if device.type == "cuda" else {}
    common = {"dataset": "c_alpha", "n_train": 64, "n_test": 1, "precision": PRECISIONS}
    rungs = [*LADDER, *_further_rungs(overrides)]
    trials = union([{**common, **rung, **batch} for rung in rungs], overrides)
    for trial in trials:
        needed, found = cost.memory(trial, on_gpu=device.type == "cuda") / 1e9, hardware.memory(device) / 1e9
        if needed > found:
            raise UserError(f"{label(trial)} needs {needed:.3g} GB of memory, and there are {found:.3g}")
    return trials


def _further_rungs(overrides: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rungs for those of the architectures asked for that LADDER has none of."""
    wanted = overrides.get("architecture", ())
    names = dict.fromkeys([wanted] if isinstance(wanted, str) else wanted)
    on_ladder = {rung["architecture"] for rung in LADDER}
    return [
        rung for name in names if name in ARCHITECTURES and name not in on_ladder for rung in _rungs(name, overrides)
    ]


def _rungs(name: str, overrides: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Up to three rungs of an architecture, at resolutions that it takes with these overrides."""
    own = {field.name for field in fields(ARCHITECTURES[name])}
    axes = {
        "dataset": "c_alpha",
        "architecture": name,
        "n_train": 1,
        **{k: overrides[k] for k in own & overrides.keys()},
    }

    def fits(resolution: int) -> bool:
        try:
            return bool(grid({**axes, "resolution": resolution}))
        except UserError:
            return False

    rungs = {}
    for least, batch_size in RUNGS:
        if found := next(filter(fits, range(least, LARGEST + 1)), None):
            rungs[found] = {"architecture": name, "resolution": found, "batch_size": batch_size}
    # an architecture that takes none of these sizes says why
    return list(rungs.values()) or [{"architecture": name, "resolution": LARGEST, "batch_size": 1}]


def measure(trial: Trial, device: "torch.device", seconds: float = 1.0) -> Rate:
    """Train on random images and time GPU_STEPS steps, on a CPU about so many seconds of them, after WARM_UP others.
    Nothing else falls into that time, and a GPU is waited for at its start and at its end alone."""
    import torch

    from gahb.training import step

    side, gpu = trial.dataset.resolution, device.type == "cuda"
    images = torch.randint(0, 256, (trial.n_train, trial.dataset.image_channels, side, side), dtype=torch.uint8).to(
        device
    )
    clock = time.perf_counter if gpu else time.process_time  # other work does not count
    step.make_deterministic()
    take = step.stepper(trial, *step.start(trial, device), images)
    for number in range(WARM_UP):
        loss = take(number)
    loss.item()
    begun, taken = clock(), 0
    while taken < GPU_STEPS if gpu else clock() - begun < seconds:
        loss = take(WARM_UP + taken)
        taken += 1
    loss.item()
    return Rate(trial, (clock() - begun) / taken / trial.batch_size, "calibration")


def calibrate(
    trials: Sequence[Trial],
    device: "torch.device",
    record: "RecordWriter",
    say: Callable[[str], None],
) -> tuple[str, list[Rate]]:
    """Measure each trial, and log the rates as a run of the record: its id, and the rates."""
    name = hardware.name(device)
    tags: dict[str, str] = {Tag.KIND: Kind.CALIBRATION, Tag.DEVICE: name}
    run_id = record.create(EXPERIMENT, name, params={}, tags=tags)
    rates: list[Rate] = []
    for trial in trials:
        rates.append(measure(trial, device))
        say(f"[{len(rates)}/{len(trials)}] {label(trial)}: {rates[-1].flops / 1e9:.3g} GFLOP/s")
    points = [{"trial": rate.trial.flat(), "seconds": rate.seconds} for rate in rates]
    record.tag(run_id, {Tag.RATES: json.dumps(points)})
    record.log_metrics(run_id, {f"gflops {label(rate.trial)}": rate.flops / 1e9 for rate in rates})
    record.finish(run_id)
    return run_id, rates


def label(trial: Trial) -> str:
    """A rung of the ladder in words: "unet 20x20 width64 batch64 float32". Of the architecture's own keys it names the
    width, if it has one, and those that are not as usual at this resolution."""
    side, architecture = trial.dataset.resolution, trial.architecture
    usual = type(architecture).at(side).flat()
    own = {k: v for k, v in architecture.flat().items() if k == "width" or v != usual.get(k)}
    compiled = ["compiled"] if trial.compile else []
    named = [key if value is True else f"{key}{value}" for key, value in own.items()]
    words = [architecture.name, f"{side}x{side}", *named, f"batch{trial.batch_size}", trial.precision, *compiled]
    return " ".join(words)


def devices(runs: Iterable["Run"]) -> list[Device]:
    """The devices that calibrations and finished trials tell of, the last one used first; other runs tell nothing. A
    later calibration of the same shape replaces an earlier one."""
    found: dict[str, dict[Any, Rate]] = {}
    for run in runs:
        name = run.tags.get(Tag.DEVICE, "")
        if run.kind not in SPEED or run.state != "finished" or not name:
            continue
        rates = found.pop(name, {})
        if run.kind == Kind.CALIBRATION:
            points = json.loads(run.tags[Tag.RATES])
            with contextlib.suppress(UserError):
                known = [Rate(Trial.of(point["trial"]), point["seconds"], "calibration") for point in points]
                rates.update({rate.trial: rate for rate in known})
        elif spent := device_seconds(run):
            with contextlib.suppress(UserError):  # of a guest that is not here
                rates[run.run_id] = Rate(run.trial, spent / cost.images(run.trial), "runs")
        found[name] = rates
    return [Device(name, list(rates.values())) for name, rates in reversed(found.items()) if rates]


def known(record: "Record") -> Device | None:
    """What the record knows of this machine's device, else of the one last used: from all calibrations, and from the
    newest trials that it trained."""
    calibrations = record.runs(Kind.CALIBRATION)
    for wanted in (hardware.here()[0], None):
        found = devices([*record.newest(Kind.TRIAL, RECENT, wanted), *calibrations])
        if device := next((device for device in found if wanted in (device.name, None)), None):
            return device
    return None


def by_kind(record: "Record") -> Callable[[str], Device | None]:
    """Ray's name of a kind of GPU ↦ what the record knows of that device; "" ↦ `known`, whatever it is."""
    found = devices([*record.newest(Kind.TRIAL, RECENT), *record.runs(Kind.CALIBRATION)])
    otherwise = known(record)

    def device(kind: str) -> Device | None:
        if not kind:
            return otherwise
        name = re.sub(r"-\d+G$", "", kind).replace("-", " ")
        return next((each for each in found if re.search(rf"\b{re.escape(name)}\b", each.name)), None)

    return device


def device_seconds(run: "Run") -> float | None:
    """Device-seconds that a finished trial's training took, or would have taken in one go; None if it was too short to
    tell."""
    rate, share = run.metrics.get("images_per_second"), run.tags.get(Tag.SHARE)
    return float(share) * int(run.flat["images"]) / rate if rate and share else None


def past_plans(runs: Iterable["Run"]) -> list[float]:
    """Device time taken over device time planned, for each finished trial that had a plan."""
    plans = [(device_seconds(run), run.tags.get(Tag.PLANNED_SECONDS)) for run in runs if run.state == "finished"]
    return [taken / float(planned) for taken, planned in plans if taken and planned]


def _flops(trial: Trial) -> float:
    return cost.TRAINING_FACTOR * cost.forward_flops(trial.architecture, trial.dataset.resolution)


def _shape(trial: Trial) -> tuple[Any, ...]:
    return trial.architecture, trial.dataset.resolution, trial.batch_size, *_arithmetic(trial)


def _arithmetic(trial: Trial) -> tuple[str, bool]:
    return trial.precision, trial.compile


def _work(trial: Trial) -> tuple[float, float, float]:
    """Layers / batch size, numbers kept and FLOPs, an image."""
    layers = trial.architecture.counts(trial.dataset.resolution)
    return len(layers) / trial.batch_size, float(sum(layer.kept for layer in layers)), _flops(trial)


def _fit(rates: Sequence[Rate]) -> list[float]:
    """The coefficients ≥ 0 of `_work` with the least squared relative error."""
    import numpy as np
    from scipy.optimize import nnls

    relative = np.array([_work(rate.trial) for rate in rates]) / np.array([[rate.seconds] for rate in rates])
    scale = np.maximum(relative.max(axis=0), 1e-300)
    if len({_shape(rate.trial) for rate in rates}) < relative.shape[1]:
        relative[:, :-1] = 0
    coefficients: list[float] = (nnls(relative / scale, np.ones(len(rates)))[0] / scale).tolist()
    return coefficients
