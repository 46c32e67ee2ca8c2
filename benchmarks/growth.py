"""How time and peak memory grow: five kinds of work at four sizes each, every size in a process of its own; and what
the commands take on records of 100, 1000 and 10,000 finished trials, an SQLite file each.

The exponents are slopes of log time and log memory against log size, by least squares; memory is that of the
whole process, libraries included. CPU time on one thread, after the smallest size once, which counts for nothing. So
the commands' times are without imports.
"""

import contextlib
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.harness import Row, main, peak_memory
from benchmarks.stacks import smooth_images


def training(images_seen: int) -> None:
    from gahb.storage.local import Folder
    from gahb.training.checkpoints import Checkpoints
    from gahb.training.loop import Training, train
    from gahb.trial import Trial

    trial = Trial.of(
        {
            "dataset": "c_alpha", "resolution": 16, "n_train": 64, "n_test": 16,
            "width": 16, "batch_size": 32, "images": images_seen,
        }
    )  # fmt: skip
    images = torch.from_numpy(smooth_images(80, 16)).unsqueeze(1)
    with tempfile.TemporaryDirectory() as folder:
        train(Training(trial, images[:64], images[64:], torch.device("cpu")), Checkpoints(Folder(Path(folder))))


def sampling(count: int) -> None:
    from gahb.denoising.sampling import sample
    from gahb.models.architectures import UNet
    from gahb.models.layers import Denoiser, initialise

    torch.manual_seed(0)
    net = Denoiser(UNet(1, 16).build().apply(initialise)).eval()
    # an untrained net would diverge: pay for it, and shrink towards the mean instead
    sample(lambda y: 0.5 + 0.1 * (y - 0.5) + 0 * net(y), count, (1, 16, 16), mean=0.5)


def duplicates(count: int) -> None:
    from gahb.data.similarity import near_duplicates

    near_duplicates(smooth_images(count, 20).astype(np.float32), 0.95)


def nearest(count: int) -> None:
    from gahb.data.similarity import closest

    images = torch.from_numpy(smooth_images(count, 40)).unsqueeze(1)
    closest(images[:256].float() / 255, images[256:], centred=True)


def scaling(trials: int) -> None:
    import pandas as pd
    from gahb_analysis.scaling import crossings, scaling_table

    n = np.arange(trials)
    table = pd.DataFrame(
        {"curve": n // 12, "resolution": 20, "parameters": 1, "n_train": 10 ** (n // 2 % 6), "subset": n % 2, "seed": 0}
    )
    gap = 20 / table["n_train"]
    table = table.assign(train_psnr=20 + gap, test_psnr=20.0, psnr_gap=gap, psnr_gap_db=gap)
    scaling_table(table)
    crossings(table, 1.0)


WORK: dict[str, tuple[Callable[[int], None], list[int], str]] = {
    "training": (training, [1600, 3200, 6400, 12_800], "images seen, UNet of width 16 at 16×16"),
    "sampling": (sampling, [64, 128, 256, 512], "samples of that net"),
    "duplicates": (duplicates, [10_000, 20_000, 40_000, 80_000], "images at 20×20"),
    "nearest": (nearest, [5000, 10_000, 20_000, 40_000], "images at 40×40, 256 samples"),
    "scaling": (scaling, [120, 480, 1920, 7680], "trials, twelve a curve"),
}


TRIALS = [100, 1000, 10_000]
"""Finished trials in a record."""

LIMITS = {"status": 1.1, "status of a sweep of 100": 0.3, "show": 0.3, "plan of 4": 0.3, "start of launch of 4": 0.3}
"""What the exponents of the commands should not exceed."""


def commands(folder: Path, count: int) -> dict[str, float]:
    """CPU seconds of the commands on a record of so many trials in a folder, in this process."""
    from gahb_sweeps import cli

    from benchmarks import records
    from gahb.execution.launch import Launch, LaunchOptions
    from gahb.planning import calibration
    from gahb.planning.plan import plan
    from gahb.storage import leases
    from gahb.storage.local import Folder
    from gahb.tracking.record import Record

    record, storage = f"sqlite:///{folder / 'record.db'}", Folder(folder / "storage")
    where = {"record": record, "storage": storage.uri, "json": True}

    def start_of_launch() -> None:
        """What a launch of four new trials does but for the cluster, up to the runs that workers would begin with."""
        trials = records.trials(range(count, count + 4))
        launch = Launch(trials, "all", storage, Record(record, storage.url), LaunchOptions(), lambda line: None)
        to_train = launch.plan()
        device = calibration.by_kind(launch.record)("")
        with leases.heartbeat(storage) as launch_id:
            for p in to_train:
                leases.acquire(storage, p.signature, launch_id)
            for p in plan(trials, storage, launch.record, lambda trial: device):
                launch.scheduled_run(p, launch_id)

    work: dict[str, Callable[[], None]] = {
        "status": lambda: cli.status(**where),
        "status of a sweep of 100": lambda: cli.status("sweep0", **where),
        "show": lambda: cli.show(f"{1:032x}", **where),
        "plan of 4": lambda: cli.plan("demo", records.settings(range(4)), **where),
        "plan of all": lambda: cli.plan("demo", records.settings(range(count)), **where),
        "start of launch of 4": start_of_launch,
    }
    seen = {}
    for name, run in work.items():
        start = time.process_time()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            run()
        seen[name] = time.process_time() - start
    return seen


def measure_commands(count: int) -> dict[str, float]:
    """What `commands` takes, after a record of four trials."""
    from benchmarks import records

    with tempfile.TemporaryDirectory() as folder:
        for size in (4, count):
            place = Path(folder) / str(size)
            place.mkdir()
            records.fill(place, size)
            (place / "storage" / "artifacts" / "all" / f"{1:032x}" / "artifacts").mkdir(parents=True)
            seen = commands(place, size)
    return seen


def command_rows() -> list[Row]:
    """A row for each command."""
    command = [sys.executable, "-m", "benchmarks.growth", "commands"]
    seen = [json.loads(subprocess.check_output([*command, str(n)]).splitlines()[-1]) for n in TRIALS]
    found = []
    for name in seen[0]:
        seconds = [times[name] for times in seen]
        growth, most = exponent(TRIALS, seconds), LIMITS.get(name)
        points = "; ".join(f"{n:,}: {s:.2f} s" for n, s in zip(TRIALS, seconds, strict=True))
        work = f"{name}: exponent of time, not a ratio (finished trials in the record)"
        target, met = ("", None) if most is None else (f"≤ {most}", growth <= most)
        found.append(Row(work, "three sizes", growth, target, met, points))
    return found


def measure(name: str, size: int) -> dict[str, float]:
    """Seconds and bytes of a piece of work, in this process."""
    work, sizes, _ = WORK[name]
    torch.set_num_threads(1)
    work(min(sizes))
    start = time.process_time()
    work(size)
    return {"seconds": time.process_time() - start, "bytes": peak_memory()}


def exponent(sizes: list[int], values: list[float]) -> float:
    """The least-squares slope of log values against log sizes."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def rows() -> list[Row]:
    found = []
    for name, (_, sizes, unit) in WORK.items():
        command = [sys.executable, "-m", "benchmarks.growth", name]
        seen = [json.loads(subprocess.check_output([*command, str(size)]).splitlines()[-1]) for size in sizes]
        seconds, held = [s["seconds"] for s in seen], [s["bytes"] for s in seen]
        points = "; ".join(f"{n:,}: {s:.2f} s, {b / 1e9:.2f} GB" for n, s, b in zip(sizes, seconds, held, strict=True))
        found.append(
            Row(
                f"{name}: exponent of time, not a ratio ({unit})",
                "four sizes",
                exponent(sizes, seconds),
                "",
                None,
                f"peak memory of the whole process grows with exponent {exponent(sizes, held):.2f}; {points}",
            )
        )
    return [*found, *command_rows()]


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "commands":
        print(json.dumps(measure_commands(int(sys.argv[2]))))
    elif len(sys.argv) == 3 and sys.argv[1] in WORK:
        print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
    else:
        main(rows, __doc__)
