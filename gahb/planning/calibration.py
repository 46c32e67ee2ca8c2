"""How long training takes on a device: measured, kept in the record, and learned from finished runs.

A step on a batch of b images is taken to last

    t = launch · layers + traffic · b · (numbers kept for backward) + arithmetic · b · 3 · (forward FLOPs)

seconds, with three coefficients ≥ 0 for each precision, fitted to what was measured with the least relative error. A
shape that finished runs have trained takes what it took them (their median).

Time is device time: seconds × the share of a GPU, or the number of cores, that a trial had.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gahb import hardware
from gahb.errors import UserError
from gahb.models.architectures import ARCHITECTURES
from gahb.training import cost
from gahb.trial import Trial, union

if TYPE_CHECKING:
    import torch

    from gahb.storage.base import Storage
    from gahb.tracking.record import Record, Run

EXPERIMENT = KIND = "calibration"

LADDER: tuple[dict[str, Any], ...] = (
    {"architecture": "unet", "resolution": 16, "width": 16, "batch_size": 32},
    {"architecture": "unet", "resolution": 20, "batch_size": 64},
    {"architecture": "unet", "resolution": 40, "batch_size": 16},
    {"architecture": "bf_cnn", "resolution": 40, "batch_size": 8},
    {"architecture": "unet", "resolution": 80, "batch_size": 4},
)
"""What is measured on a CPU; on a GPU with batches of 512."""

GPU_BATCH = 512

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
        name: as `resources` gives it; a GPU, or a core of a CPU.
        rates: measured on it.
    """

    name: str
    rates: Sequence[Rate]

    def seconds(self, trial: Trial) -> tuple[float, str] | None:
        """Device-seconds of the whole training, and "runs" or "calibration"; None if nothing alike was measured."""
        own = [r.seconds for r in self.rates if r.source == "runs" and _shape(r.trial) == _shape(trial)]
        if own:
            return statistics.median(own) * cost.images(trial), "runs"
        alike = [r for r in self.rates if _arithmetic(r.trial) == _arithmetic(trial)]
        if not alike:
            return None
        predicted = sum(c * w for c, w in zip(_fit(alike), _work(trial), strict=True))
        calibrated = any(r.source == "calibration" for r in alike)
        return predicted * cost.images(trial), "calibration" if calibrated else "runs"

    def utilisation(self, trial: Trial) -> float | None:
        """The trial's FLOP/s over the highest that was measured in its precision, in (0, 1]; None if not measured."""
        alike = [r.flops for r in self.rates if _arithmetic(r.trial) == _arithmetic(trial)]
        found = self.seconds(trial)
        return min(1.0, _flops(trial) * cost.images(trial) / found[0] / max(alike)) if alike and found else None


def ladder(overrides: Mapping[str, Any], device: "torch.device") -> list[Trial]:
    """The trials to measure; overrides as for a sweep, `precision` both unless one is given.

    Raises:
        UserError: an override that does not change how fast a step is, or a trial that does not fit in memory.
    """
    known = KEYS.union(*({field.name for field in fields(cls)} for cls in ARCHITECTURES.values()))
    if unfit := overrides.keys() - known:
        raise UserError(f"{min(unfit)} does not apply to a calibration")
    batch = {"batch_size": GPU_BATCH} if device.type == "cuda" else {}
    common = {"dataset": "c_alpha", "n_train": 64, "n_test": 1, "precision": ("float32", "bfloat16")}
    trials = union([{**common, **rung, **batch} for rung in LADDER], overrides)
    for trial in trials:
        if cost.memory(trial) > hardware.memory(device):
            needed, found = cost.memory(trial) / 1e9, hardware.memory(device) / 1e9
            raise UserError(f"{label(trial)} needs {needed:.3g} GB of memory, and there are {found:.3g}")
    return trials


def measure(trial: Trial, device: "torch.device", seconds: float = 1.0) -> Rate:
    """Train on random images for about so many seconds after a first step, which may compile. The difference of a long
    and a short training leaves start and end out."""
    import torch

    from gahb.storage.local import Folder
    from gahb.training.checkpoints import Checkpoints
    from gahb.training.loop import train

    side = trial.dataset.resolution
    images = torch.randint(0, 256, (trial.n_train, 1, side, side), dtype=torch.uint8)

    clock = time.perf_counter if device.type == "cuda" else time.process_time  # other work does not count

    def lasts(steps: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            short = replace(trial, images=steps * trial.batch_size)
            begun = clock()
            train(short, images, images[: trial.n_test], device=device, checkpoints=Checkpoints(Folder(Path(folder))))
            return clock() - begun

    lasts(1)
    short = lasts(1)
    more = max(1, min(14, round(seconds / short)))  # with the 16th step an evaluation would come
    return Rate(trial, max(lasts(1 + more) - short, 1e-6) / more / trial.batch_size, "calibration")


def calibrate(
    trials: Sequence[Trial], device: "torch.device", record: "Record", storage: "Storage", say: Callable[[str], None]
) -> tuple[str, list[Rate]]:
    """Measure each trial, and keep the rates in a run of the record: its id, and the rates."""
    name = hardware.name(device)
    tags = {"gahb.kind": KIND, "gahb.device": name}
    run_id = record.create(EXPERIMENT, name, f"{storage.url}/artifacts", params={}, tags=tags)
    rates: list[Rate] = []
    for trial in trials:
        rates.append(measure(trial, device))
        say(f"[{len(rates)}/{len(trials)}] {label(trial)}: {rates[-1].flops / 1e9:.3g} GFLOP/s")
    points = [{"trial": rate.trial.flat(), "seconds": rate.seconds} for rate in rates]
    record.tag(run_id, {"gahb.rates": json.dumps(points)})
    record.log_metrics(run_id, {f"gflops {label(rate.trial)}": rate.flops / 1e9 for rate in rates})
    record.finish(run_id)
    return run_id, rates


def label(trial: Trial) -> str:
    """A rung of the ladder in words: "unet 20x20 width64 batch64 float32"."""
    flat = trial.flat()
    size = f"{flat['resolution']}x{flat['resolution']} width{flat['width']} batch{flat['batch_size']}"
    return f"{flat['architecture']} {size} {flat['precision']}{' compiled' if flat['compile'] else ''}"


def devices(runs: Iterable["Run"]) -> list[Device]:
    """The devices that calibrations and finished trials tell of, the last one used first. A later calibration of the
    same shape replaces an earlier one."""
    found: dict[str, dict[Any, Rate]] = {}
    for run in runs:
        name = run.tags.get("gahb.device", "")
        if run.state != "finished" or not name:
            continue
        rates = found.pop(name, {})
        if run.tags["gahb.kind"] == KIND:
            points = json.loads(run.tags["gahb.rates"])
            known = [Rate(Trial.of(point["trial"]), point["seconds"], KIND) for point in points]
            rates.update({rate.trial: rate for rate in known})
        elif spent := device_seconds(run):
            trial = trial_of(run)
            rates[run.run_id] = Rate(trial, spent / cost.images(trial), "runs")
        found[name] = rates
    return [Device(name, list(rates.values())) for name, rates in reversed(found.items()) if rates]


def known(record: "Record", name: str | None = None) -> Device | None:
    """What the record knows of the device of that name, else of this machine's, else of the one last used."""
    found = devices(record.trained())
    return next(
        (device for wanted in (name, hardware.here()[0]) for device in found if device.name == wanted),
        next(iter(found), None),
    )


def trial_of(run: "Run") -> Trial:
    """The trial of a run."""
    return Trial.of(run.trial)


def device_seconds(run: "Run") -> float | None:
    """Device-seconds that a finished trial's training took, or would have taken in one go; None if it was too short to
    tell."""
    rate = run.metrics.get("images_per_second")
    return float(run.tags["gahb.share"]) * int(run.params["images"]) / rate if rate else None


def past_plans(runs: Iterable["Run"]) -> list[float]:
    """Device time taken over device time planned, for each finished trial that had a plan."""
    plans = [(device_seconds(run), run.tags.get("gahb.planned_seconds")) for run in runs if run.state == "finished"]
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
    coefficients: list[float] = (nnls(relative / scale, np.ones(len(rates)))[0] / scale).tolist()
    return coefficients
