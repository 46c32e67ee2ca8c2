import pandas as pd
import pytest

from benchmarks.search import HEADER, grid_of, replay, rows
from gahb.denoising.levels import Gap
from gahb.planning.search import grid_sizes

SIZES = grid_sizes(1, 3000, 1.2)


def trials(star: float) -> pd.DataFrame:
    """A grid whose gap is 1 dB at N = star, and twice that in decibels."""
    frame = pd.DataFrame([(n, subset, seed) for n in SIZES for subset in "AB" for seed in (0, 1)])
    frame = frame.set_axis(["n_train", "subset", "seed"], axis=1).assign(curve="c", resolution=16, parameters=1)
    gap = (star / frame["n_train"]) ** frame["subset"].map({"A": 0.95, "B": 1.05})
    return frame.assign(psnr_gap=gap, psnr_gap_db=2 * gap)


@pytest.mark.parametrize("gap", Gap)
def test_a_search_is_replayed_on_the_trials_of_a_grid(gap: Gap) -> None:
    table = trials(100.0)
    star = {Gap.SIGMA: 100, Gap.DB: 200}[gap]
    search, taken = replay(grid_of(table, gap), 1.0, 1.3)
    low, high = search.estimates["c"].low, search.estimates["c"].high
    assert low and high and low <= star <= high <= 1.3 * low
    tried = {(unit.n_train, unit.seed) for unit in taken}
    assert {n for n, _ in tried} <= set(SIZES) and len(tried) == len(taken) <= len(SIZES) / 2
    (row,) = rows(table, gap, 1.0, 1.3)
    shown = dict(zip(HEADER, row, strict=True))
    assert shown["holds it"] == "yes" and shown["images"].startswith(f"{len(taken)} of {2 * len(SIZES)} pairs")
    assert float(shown["N* of the grid"]) == pytest.approx(star, rel=0.02)


def test_a_replay_ends_where_the_grid_is_too_coarse() -> None:
    table = trials(100.0)
    coarse = table[table["n_train"].isin([1, 26, SIZES[25], 3000])]
    search, taken = replay(grid_of(coarse, Gap.SIGMA), 1.0, 1.05)
    assert search.open("c") and len(taken) < len(coarse) / 2
