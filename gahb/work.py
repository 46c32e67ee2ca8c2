"""A worker's part: carry one trial out, from prepared images to a finished run. It knows nothing of Ray."""

import shutil
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

import gahb
from gahb import figures, resources, training, weights
from gahb.assignment import Assignment
from gahb.data import subsets
from gahb.data.dataset import Prepared
from gahb.record import Record
from gahb.shortage import OutOfMemory
from gahb.trial import Trial


def carry_out(assignment: Assignment, device: torch.device, report: Callable[[dict[str, float]], None]) -> None:
    """Train the trial from where its checkpoint stands, log to its run, and leave weights, card, curve and examples.

    Args:
        assignment: the trial.
        device: where to train.
        report: called with each new evaluation's metrics.

    Raises:
        Superseded: another worker has taken the trial over.
    """
    trial = Trial.of(assignment.flat)
    storage = Path(assignment.storage)
    record = Record(assignment.record_uri)
    writer = record.write(assignment.run_id)
    resources.reset_peak(device)
    prepared = Prepared.open(storage, assignment.data_hash)
    train_images = subsets.training_images(prepared, trial)
    test_images = subsets.held_out_images(prepared, trial)
    subset_hash = subsets.subset_hash(train_images)
    record.tag(assignment.run_id, {"gahb.subset_hash": subset_hash})

    def on_evaluation(history: list[training.Evaluation]) -> None:
        rows = [evaluation.metrics() for evaluation in history]
        writer.log(rows)
        report(rows[-1])

    begun, seen = time.monotonic(), assignment.checkpoints.step * trial.batch_size
    try:
        trained = training.train(
            trial,
            train_images,
            test_images,
            device=device,
            checkpoints=assignment.checkpoints,
            checkpoint_seconds=assignment.checkpoint_seconds,
            on_evaluation=on_evaluation,
        )
    except (training.Diverged, OutOfMemory) as error:
        record.fail(assignment.run_id, str(error))
        return
    except Exception:
        record.add_text(assignment.run_id, traceback.format_exc(), "traceback.txt")
        raise
    taken = time.monotonic() - begun
    total = trial.steps * trial.batch_size
    spent = {"images_per_second": (total - seen) / taken} if seen < total else {}
    writer.log([{"images_seen": total, **spent, "peak_memory_gb": resources.peak_memory(device) / 1e9}])
    share = assignment.gpus if device.type == "cuda" else assignment.cpus
    record.tag(assignment.run_id, {"gahb.device": resources.name(device), "gahb.share": share})
    card = {
        "signature": assignment.signature,
        "trial": assignment.flat,
        "data_hash": assignment.data_hash,
        "content_sha256": prepared.manifest["content_sha256"],
        "subset_hash": subset_hash,
        "images_seen": total,
        "metrics": trained.history[-1].curve.summary(),
        "gahb_version": gahb.__version__,
        "torch_version": torch.__version__,
    }
    with tempfile.TemporaryDirectory() as folder:
        weights.save(Path(folder), trained.denoiser, card)
        figures.write_trial(Path(folder), trained, test_images)
        shutil.copytree(assignment.checkpoints.weights_folder, Path(folder) / weights.COURSE)
        writer.check()
        record.add_artifacts(assignment.run_id, Path(folder))
    record.finish(assignment.run_id)
