"""Rows of trials and of curves as tables."""

from typing import TYPE_CHECKING, Any

from gahb.cli import print_line, print_table
from gahb.sentences import crossing, with_interval

if TYPE_CHECKING:
    from gahb.execution.search import Criterion


def print_found(rows: list[dict[str, Any]], criterion: "Criterion") -> None:
    """What a search has found: a table, and a line a curve that says where N* is and what a grid would have cost."""
    keys = ("curve", "n_star", "low", "high", "bound", "trials", "images_spent", "grid_images")
    print_table([{key: row[key] for key in keys} for row in rows])
    for row in rows:
        print_line(f"{row['curve']}: {_found(row, criterion)}")


def _found(row: dict[str, Any], criterion: "Criterion") -> str:
    spent = f"{row['images_spent']:,} images"
    if row["images_known"]:
        spent += f", beside {row['images_known']:,} of trials that were there"
    if not (row["n_star"] or row["bound"]):
        return f"N* is not known after {spent}"
    gap = criterion.gap
    what = f"the gap averaged over {gap.average}" if gap else "the similarity of A and B beyond chance"
    threshold = f"{criterion.threshold:g} dB" if gap else f"{criterion.threshold:g}"
    n_star = with_interval(row["n_star"], row["low"], row["high"]) if row["n_star"] else ""
    where = crossing(what, threshold, n_star, row["bound"], falls=bool(gap))
    return f"{where}, found with {spent}; a grid of such steps takes {row['grid_images']:,}"


def short(row: dict[str, Any]) -> dict[str, Any]:
    trained = {"trained": "yes" if row["trained"] else "no"} if "trained" in row else {}
    metrics = {key: row["metrics"].get(key) for key in ("train_psnr", "test_psnr", "psnr_gap", "psnr_gap_db")}
    return {"name": row["name"], "run_id": (row["run_id"] or "–")[:8], "state": row["state"], **trained, **metrics}
