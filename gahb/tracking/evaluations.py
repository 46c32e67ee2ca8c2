"""The PSNRs of trials, those of older records included."""

import csv
import io
import itertools
import math

import pandas as pd

from gahb.denoising.levels import INPUT_PSNR
from gahb.denoising.psnr import Curve
from gahb.errors import UserError
from gahb.storage.local import content_of
from gahb.tracking.record import Record
from gahb.tracking.run import METRICS, Run

LARGEST = 4 << 20
"""Bytes of the largest table of a PSNR curve that is read."""


def trial_metrics(record: Record, run: Run) -> dict[str, float]:
    """METRICS of a finished trial; `psnr_gap_db`, which an older version did not log, from its PSNR curve.

    Raises:
        UserError: the curve is needed and not there, or not a whole one.
    """
    metrics = run.psnrs
    if not math.isfinite(metrics.get("psnr_gap_db", math.nan)):
        metrics["psnr_gap_db"] = list(_curves(record, run).values())[-1].summary()["psnr_gap_db"]
    return metrics


def evaluations_of(record: Record, run: Run) -> pd.DataFrame:
    """A row an evaluation of a trial, finished or not: images_seen and METRICS; `psnr_gap_db`, which an older version
    did not log, from the PSNR curves of a finished trial.

    Raises:
        UserError: as for `trial_metrics`.
    """
    columns = {key: pd.Series(dict(record.history(run.run_id, key)), dtype=float) for key in METRICS}
    table = pd.DataFrame(columns).rename_axis("images_seen").sort_index().reset_index()
    if run.state == "finished" and table["psnr_gap_db"].isna().any():
        logged = {seen: curve.summary()["psnr_gap_db"] for seen, curve in _curves(record, run).items()}
        table["psnr_gap_db"] = table["psnr_gap_db"].fillna(table["images_seen"].map(logged))
    return table.astype({"images_seen": int})


def _curves(record: Record, run: Run) -> dict[int, Curve]:
    """Images seen → PSNR curve, at every evaluation."""
    curves = dict[int, Curve]()
    try:
        table = content_of(record.artifacts(run.run_id, "psnr_curve.csv"), LARGEST).decode()
        for seen, group in itertools.groupby(csv.DictReader(io.StringIO(table)), lambda row: row["images_seen"]):
            rows = list(group)
            train, test = (tuple(float(row[key]) for row in rows) for key in ("train_psnr", "test_psnr"))
            if tuple(float(row["input_psnr"]) for row in rows) != INPUT_PSNR or not all(
                map(math.isfinite, train + test)
            ):
                raise ValueError(seen)
            curves[int(seen)] = Curve(train, test)
    except (OSError, ValueError, KeyError, TypeError):
        curves.clear()
    if not curves:
        raise UserError(f"psnr_curve.csv of {run.name} ({run.run_id[:8]}) holds no PSNR curves from 0 to 42 dB")
    return curves
