"""Eight narrow models: a textbook loop, one model after another on one thread, against one `launch`.

The launch includes the start of its workers, not that of Ray. All is wall-clock time. Of the baseline one model is
trained, and eight times that is counted. On a GPU all train on it, and the trials of the launch share it.
"""

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks.harness import Row, main
from benchmarks.training import textbook_steps
from gahb.execution import connection
from gahb.execution.launch import launch
from gahb.grids import grid
from gahb.storage.local import Folder
from gahb.tracking import lookup
from gahb.tracking.record import Record
from gahb.tracking.run import Tag
from gahb.training import loop
from gahb.training.checkpoints import Checkpoints
from gahb.trial import Trial

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
BATCH = 64 if GPU else 32
STEPS = 3000 if GPU else 1000
MODELS = grid(
    {
        "dataset": "c_alpha",
        "resolution": 16,
        "width": 16,
        "n_train": 256,
        "n_test": 1,
        "batch_size": BATCH,
        "images": STEPS * BATCH,
        "seed": tuple(range(8)),
    }
)


def textbook(trial: Trial, images: torch.Tensor) -> None:
    """The loop of the paper's recipe in eager float32."""
    step = textbook_steps(trial, images)
    for _ in range(trial.steps):
        step()


def in_turn(trial: Trial, images: torch.Tensor) -> loop.Trained:
    """Our training in this process."""
    with tempfile.TemporaryDirectory() as folder:
        return loop.train(loop.Training(trial, images, images[:1], DEVICE), Checkpoints(Folder(Path(folder))))


def lasts(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def rows() -> Sequence[Row]:
    torch.set_num_threads(1)
    images = torch.randint(0, 256, (256, 1, 16, 16), dtype=torch.uint8)
    with tempfile.TemporaryDirectory() as folder, connection.connected(None):
        place = Path(folder)
        storage = Folder(place / "storage")
        record = Record(f"sqlite:///{place / 'record.db'}", storage.url)
        theirs = len(MODELS) * lasts(lambda: textbook(MODELS[0], images))
        ours = lasts(lambda: launch(MODELS, "many", storage=storage, record=record))
        alone = 4 * lasts(lambda: [in_turn(trial, images) for trial in MODELS[:2]])
        shares = {run.tags[Tag.SHARE] for run in lookup.finished_trials(record, "many")}
    seen = len(MODELS) * STEPS * BATCH
    unit = f"{'/'.join(sorted(shares))} of a GPU each" if GPU else f"one of {os.cpu_count()} cores each"
    detail = f"{seen / ours:.0f} images/s in all, {unit}, {ours:.0f} s with the start of the workers"
    work = f"eight models of width 16 at 16×16, {STEPS} steps of {BATCH}"
    target = 4.0 if GPU else 2.0
    return [
        Row(work, "textbook loop, one after another", theirs / ours, f"≥ {target:g}×", theirs / ours >= target, detail),
        Row(work, "our training, one after another", alone / ours, "", None, f"{seen / alone:.0f} images/s in turn"),
    ]


if __name__ == "__main__":
    main(rows, __doc__ or "")
