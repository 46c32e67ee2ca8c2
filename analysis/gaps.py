"""The PSNRs of finished trials, those of older records included."""

import csv
import io
import math

from gahb.denoising.levels import INPUT_PSNR
from gahb.denoising.psnr import Curve
from gahb.errors import UserError
from gahb.storage.local import content_of
from gahb.tracking.record import Record
from gahb.tracking.run import Run

LARGEST = 4 << 20
"""Bytes of the largest table of a PSNR curve that is read."""


def trial_metrics(record: Record, run: Run) -> dict[str, float]:
    """METRICS of a finished trial; `psnr_gap_db`, which an older version did not log, from its PSNR curve.

    Raises:
        UserError: the curve is needed and not there, or not a whole one.
    """
    metrics = run.psnrs
    if not math.isfinite(metrics.get("psnr_gap_db", math.nan)):
        metrics["psnr_gap_db"] = _last_curve(record, run).summary()["psnr_gap_db"]
    return metrics


def _last_curve(record: Record, run: Run) -> Curve:
    try:
        table = content_of(record.artifacts(run.run_id, "psnr_curve.csv"), LARGEST).decode()
        rows = list(csv.DictReader(io.StringIO(table)))[-len(INPUT_PSNR) :]
        train, test = (tuple(float(row[key]) for row in rows) for key in ("train_psnr", "test_psnr"))
        levels = tuple(float(row["input_psnr"]) for row in rows)
    except (OSError, ValueError, KeyError, TypeError):
        levels = ()
    if levels != INPUT_PSNR or not all(map(math.isfinite, train + test)):
        raise UserError(f"psnr_curve.csv of {run.name} ({run.run_id[:8]}) is no PSNR curve from 0 to 42 dB")
    return Curve(train, test)
