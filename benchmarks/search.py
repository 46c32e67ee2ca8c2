"""The search for N* replayed on a grid that is trained: `python -m benchmarks.search SWEEP`.

The search proposes as ever (`gahb.planning.search`), and gets the pairs of the grid that are nearest in N, with the
next of its seeds; nothing is trained. So it can be held against the whole grid: which trials it would have used, the
interval they leave, and the N* at which all trials of the grid cross (`gahb-analyze scaling`). It ends, too, where the
grid has no pair left that is nearer to what is proposed than the factor asked for. A row for each curve and threshold.
"""

import argparse
import math

import pandas as pd
from gahb_analysis.scaling import crossings, trials_table

from gahb.denoising.levels import Gap
from gahb.planning.search import Curve, Point, Search, Unit, of_gap, points
from gahb.storage.base import record_uri, storage_here
from gahb.tracking import lookup
from gahb.tracking.record import Record

Grid = dict[str, dict[tuple[int, int], dict[str, float]]]
"""Curve → (N, seed) → subset → PSNR gap in dB."""


def replay(grid: Grid, threshold: float, within: float) -> tuple[Search, list[Unit]]:
    """Where the search ends on a grid, and the units of the grid that it took."""
    known: dict[str, list[Point]] = {curve: [] for curve in grid}
    taken, ended = list[Unit](), set[str]()
    while True:
        search = Search(
            [
                Curve(curve, min(n for n, _ in units), max(n for n, _ in units), points=known[curve])
                for curve, units in grid.items()
            ],
            within,
        )
        proposed = search.proposals(room=1, ended=ended)
        if not proposed:
            return search, taken
        (unit,) = proposed
        left = grid[unit.curve].keys() - {(t.n_train, t.seed) for t in taken if t.curve == unit.curve}
        near = sorted(left, key=lambda each: (abs(math.log(each[0] / unit.n_train)), each))
        bracketed = search.estimates[unit.curve].factor < math.inf
        if not near or (bracketed and abs(math.log(near[0][0] / unit.n_train)) > math.log(within)):
            ended.add(unit.curve)
            continue
        n_train, seed = near[0]
        taken.append(unit._replace(n_train=n_train, seed=seed))
        gaps = grid[unit.curve][n_train, seed]
        known[unit.curve] += points(n_train, seed, gaps, lambda gap: of_gap(gap, threshold))


def grid_of(trials: pd.DataFrame, gap: Gap) -> Grid:
    """The trials that have a counterpart."""
    grid: Grid = {}
    for row in trials.to_dict("records"):
        of_curve = grid.setdefault(row["curve"], {})
        of_curve.setdefault((row["n_train"], row["seed"]), {})[row["subset"]] = row[gap.metric]
    return {curve: {key: gaps for key, gaps in units.items() if len(gaps) == 2} for curve, units in grid.items()}


def rows(trials: pd.DataFrame, gap: Gap, threshold: float, within: float) -> list[tuple[str, ...]]:
    """A row a curve."""
    grid = grid_of(trials, gap)
    search, taken = replay(grid, threshold, within)
    stars = crossings(trials, threshold, gap).set_index("curve")["n_star"]
    found: list[tuple[str, ...]] = []
    for curve, units in grid.items():
        own, estimate = [unit for unit in taken if unit.curve == curve], search.estimates[curve]
        tried = [f"{unit.n_train}{f' ({unit.seed})' if unit.seed else ''}" for unit in own]
        low, high = (f"{end:.3g}" if end else "?" for end in (estimate.low, estimate.high))
        interval = f"{estimate.n_star:.3g} ({low} … {high})" if estimate.n_star else estimate.bound or f"{low} … {high}"
        ends = (estimate.low or 0, estimate.high or math.inf)
        inside = "yes" if ends[0] <= stars[curve] <= ends[1] else "–" if math.isnan(stars[curve]) else "**no**"
        share = f"{len(own)} of {len(units)} pairs, {len(own) / len(units):.0%}"
        found.append((curve, f"{threshold:g}", f"{stars[curve]:.3g}", interval, inside, share, ", ".join(tried)))
    return found


HEADER = ("curve", "gap (dB)", "N* of the grid", "N* of the search", "holds it", "images", "N tried (seed)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", help="a grid of finished trials in the record")
    parser.add_argument("--record", help="MLflow tracking URI")
    parser.add_argument("--storage", help="folder for data and checkpoints")
    parser.add_argument("--gap", type=float, nargs="+", default=[1.0], help="thresholds in dB")
    parser.add_argument("--average", type=Gap, default=Gap.SIGMA, choices=list(Gap))
    parser.add_argument("--within", type=float, default=1.3)
    chosen = parser.parse_args()
    record = Record(record_uri(chosen.record), storage_here(chosen.storage).url)
    trials = trials_table(record, lookup.finished_trials(record, chosen.sweep))
    table: list[tuple[str, ...]] = [HEADER, ("---",) * len(HEADER)]
    for threshold in chosen.gap:
        table += rows(trials, chosen.average, threshold, chosen.within)
    for row in table:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
