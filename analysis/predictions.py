"""N* predicted for lengths of training that have not been run, kept in the record, and held against what was measured.

A prediction is of a curve of `phase`, by each law of `law` that could be fitted. Its interval is that of the law's N*
over draws of replicates, widened by how far measured N* lay from the law. It is a prediction because the record has the
time at which it was made and nothing so long at that time.
"""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from gahb.cli import say
from gahb.errors import UserError
from gahb.execution.analysis import rows_of
from gahb.storage.local import content_of
from gahb.tracking import lookup
from gahb.tracking.record import Record

from .law import Fitted, misses

SAME = 1.05
"""Up to this factor two lengths are the same: a training ends with a whole batch, and evaluations are log-spaced."""

COLUMNS: dict[str, type] = {
    "made": str,
    "curve": str,
    "curve_id": str,
    "images_seen": int,
    "law": str,
    "n_star": float,
    "low": float,
    "high": float,
    "longest": int,
    "threshold_db": float,
    "gap": str,
}
"""Of a table of predictions, with their types: when it was made (UTC), and the curve's `longest` training then, in
images seen."""

TOLD = ("saturating", "logarithmic")
"""The laws whose predictions are told in words and drawn: N* comes to rest by one and never by the other. The table
has those of all."""

LARGEST = 4 << 20
"""Bytes of the largest table that is read."""


def check_lengths(longest: Mapping[str, int], predict: Sequence[float]) -> None:
    """Raise UserError unless each of some lengths, in images seen, is beyond the longest of at least one curve.

    Args:
        longest: curve → images seen by its longest training.
        predict: what is to be predicted.
    """
    for images in predict:
        if not (math.isfinite(images) and images >= 1):
            raise UserError(f"--predict {images:g}: must be a number of images seen")
        if all(images <= SAME * reached for reached in longest.values()):
            raise UserError(
                f"--predict {images:g}: the sweep has reached {max(longest.values()):,} images already, and what is "
                "measured cannot be predicted"
            )


def predict_stars(
    laws: Mapping[str, Mapping[str, Fitted]],
    stars: pd.DataFrame,
    longest: Mapping[str, int],
    predict: Sequence[float],
    curve_ids: Mapping[str, str],
) -> pd.DataFrame:
    """A row a curve, length and law, of COLUMNS without threshold and gap. There is none where N* was nowhere measured
    of any curve of the same laws; a line says why, and where one of TOLD is not among the laws.

    Args:
        laws: curve → the laws that hold for it.
        stars: the N* that were measured, as `phase.stars_table` makes it.
        longest, predict: as for `check_lengths`; a length that a curve has reached is left out there.
        curve_ids: curve → what tells it from all others.

    Raises:
        UserError: no law could be fitted.
    """
    if predict and not any(laws.values()):
        raise UserError("too few cells have a gap within --window for a law, and without one nothing can be predicted")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    rows = []
    for curve, of_curve in stars.groupby("curve", sort=False):
        fits = laws[str(curve)]
        due = [int(images) for images in predict if images > SAME * longest[str(curve)]]
        same_law = stars[[laws[str(other)] is fits for other in stars["curve"]]]
        unknown = same_law["n_star"].isna().all()
        absent = [law for law in TOLD if law not in fits]
        if due and (unknown or absent):
            reason = _unbracketed(of_curve["bound"]) if unknown else _without(absent, fits)
            say(f"{curve}: no prediction for {', '.join(f'{images:,}' for images in due)} images: {reason}")
        for images in due:
            at = of_curve[["parameters", "pixels"]].iloc[:1].assign(images_seen=images)
            for law, fitted in fits.items() if not unknown else ():
                n_star, low, high = fitted.predicted(at, misses(fitted.fit, of_curve))
                rows.append(
                    {
                        "made": now,
                        "curve": curve,
                        "curve_id": curve_ids[str(curve)],
                        "images_seen": images,
                        "law": law,
                        "n_star": n_star,
                        "low": low,
                        "high": high,
                        "longest": longest[str(curve)],
                    }
                )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _unbracketed(bounds: pd.Series) -> str:
    """Why nothing is known of a curve's N*, from its bounds, and what helps."""
    count, sides = len(bounds), {bound[0] for bound in bounds}
    evaluations = f"all {count} evaluations" if count > 1 else "its evaluation"
    if len(sides) > 1:
        return f"at none of {evaluations} does the gap close between two N; launch with n_train between those there are"
    size = f"{int(bounds.iloc[-1].split()[1]):,}"
    if sides == {"<"}:
        where, what = f"below the smallest N ({size})", "smaller n_train or train longer"
    else:
        where, what = f"above the largest N ({size})", "larger n_train"
    return f"the gap closes {where} at {evaluations}; launch with {what}"


def _without(absent: Sequence[str], fits: Mapping[str, Fitted]) -> str:
    """Why those absent have none, and where those of the other laws are."""
    others = f"; predictions.csv has those of other laws: {', '.join(fits)}" if fits else ""
    return f"no {' or '.join(absent)} law can be fitted to the evaluations with a gap within --window{others}"


def earlier(record: Record, sweep: str) -> pd.DataFrame:
    """The predictions of earlier phase diagrams of a sweep, of COLUMNS, the oldest first."""
    found = [pd.DataFrame({key: pd.Series(dtype=kind) for key, kind in COLUMNS.items()})]
    for run in lookup.analyses(record, sweep):
        if run.kind == "phase" and "predict" in run.params:
            try:
                content = content_of(record.artifacts(run.run_id, "predictions.csv"), LARGEST)
                found.append(pd.read_csv(io.BytesIO(content))[list(COLUMNS)].astype(COLUMNS))
            except (OSError, ValueError, KeyError, UserError) as error:
                say(f"left out: the predictions of {run.name} ({run.run_id[:8]}): {error}")
    return pd.concat([table for table in found if len(table)] or found, ignore_index=True)


def outcomes(
    predictions: pd.DataFrame, curve_ids: Mapping[str, str], stars_of: Callable[[float, str], pd.DataFrame]
) -> pd.DataFrame:
    """Predictions with what was measured since, where every trial that is to come so far has been evaluated there:
    `measured_at`, in images seen, `measured`, the N*, or on which side of the sweep's N it is, `bound`, and whether it
    lies `inside` the interval, None where that is not known.

    Args:
        predictions: of COLUMNS.
        curve_ids: curve → what tells it from all others.
        stars_of: (threshold, gap) ↦ the N* that were measured, as `phase.stars_table` makes it.
    """
    names = {curve_id: curve for curve, curve_id in curve_ids.items()}
    rows: list[dict[str, Any]] = []
    for (threshold, gap), part in predictions.groupby(["threshold_db", "gap"], sort=False):
        stars = stars_of(float(str(threshold)), str(gap))
        whole = stars[stars["missing"] == 0]
        for row in rows_of(part):
            of_curve = whole[whole["curve"] == names.get(row["curve_id"])]
            distance = np.abs(np.log(of_curve["images_seen"] / row["images_seen"]))
            near = of_curve[(distance <= math.log(SAME)) & (of_curve["images_seen"] > row["longest"])]
            found: dict[str, Any] = {"measured_at": None, "measured": math.nan, "bound": None, "inside": None}
            if len(near):
                star = near.loc[distance[near.index].idxmin()]
                found = {"measured_at": int(star["images_seen"]), "measured": star["n_star"], "bound": star["bound"]}
                found["inside"] = _inside(star, row["low"], row["high"])
            rows.append({**row, **found})
    return pd.DataFrame(rows, columns=[*COLUMNS, "measured_at", "measured", "bound", "inside"])


def _inside(star: pd.Series, low: float | None, high: float | None) -> bool | None:
    if low is None or high is None:
        return None
    if not isinstance(star["bound"], str):
        return bool(low <= star["n_star"] <= high)
    side, end = star["bound"].split()
    outside = high < float(end) if side == ">" else low > float(end)
    return False if outside else None
