"""Rows of trials and of curves as tables."""

from typing import Any

from gahb.cli import print_table, say


def print_found(rows: list[dict[str, Any]]) -> None:
    """What a search has found, as a table, and what a grid would have cost."""
    keys = ("curve", "n_star", "low", "high", "bound", "trials", "images_spent", "grid_images")
    print_table([{key: row[key] for key in keys} for row in rows])
    spent, known, grid = (sum(row[key] for row in rows) for key in ("images_spent", "images_known", "grid_images"))
    before = f", beside {known:.3g} of trials that were there" if known else ""
    say(f"{spent:.3g} images seen{before}; grids of such steps see {grid:.3g}")


def short(row: dict[str, Any]) -> dict[str, Any]:
    trained = {"trained": "yes" if row["trained"] else "no"} if "trained" in row else {}
    metrics = {key: row["metrics"].get(key) for key in ("train_psnr", "test_psnr", "psnr_gap", "psnr_gap_db")}
    return {"name": row["name"], "run_id": (row["run_id"] or "–")[:8], "state": row["state"], **trained, **metrics}
