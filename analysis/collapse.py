"""The collapse of the gap curves of all N to one, a function of images/N^q."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar

from .gaps import Estimate, Vector, draws_of, interval, log_gaps_of, log_of, rms

LARGEST_Q = 3.0
DEGREE = 3
"""Of the polynomial to which collapsed curves are held."""


@dataclass(frozen=True)
class Collapse:
    """Gap curves of all N as one: `q`, with which the gap is best a function of images/N^q, its interval `low` to
    `high`, a `bound` ("> 3") where it lies at an end of the search, and the `spread` that is left of log gap around a
    smooth curve at this q and at q = 1."""

    q: float
    low: float
    high: float
    bound: str | None
    spread: float
    spread_at_one: float
    cells: int


def collapse(gaps: pd.DataFrame) -> Collapse | None:
    """q of the cells of one curve; None of fewer than 8 cells, or those of one N or one length.

    log gap is held to a polynomial of degree DEGREE in log images - q log N, whose coefficients are least squares.

    Args:
        gaps: as `gaps_of` makes it, within a window.
    """
    cells, log_gaps = gaps.index.to_frame(index=False), log_gaps_of(gaps.mean(axis=1), 1)
    if len(cells) < 8 or min(cells["n_train"].nunique(), cells["images_seen"].nunique()) < 2:
        return None
    best, drawn = _best_q(cells, log_gaps), list[float]()
    for means, count in draws_of(gaps):
        there = ~np.isnan(means)
        drawn += [_best_q(cells[there], log_gaps_of(means[there], 1))] * count
    q = Estimate(best, *interval(drawn)).within(0.01, LARGEST_Q - 0.01)
    spread, at_one = (_spread(each, cells, log_gaps) for each in (best, 1.0))
    return Collapse(q.value, q.low, q.high, q.bound, spread, at_one, len(cells))


def _best_q(cells: pd.DataFrame, log_gaps: Vector) -> float:
    tried = np.linspace(0, LARGEST_Q, 61)
    best = tried[np.argmin([_spread(q, cells, log_gaps) for q in tried])]
    ends = max(best - 0.05, 0), min(best + 0.05, LARGEST_Q)
    return float(minimize_scalar(_spread, args=(cells, log_gaps), bounds=ends, method="bounded").x)


def _spread(q: float, cells: pd.DataFrame, log_gaps: Vector) -> float:
    """The root mean square that the polynomial leaves."""
    x = log_of(cells, "images_seen") - q * log_of(cells, "n_train")
    powers = np.vander((x - x.mean()) / max(x.std(), 1e-9), DEGREE + 1)
    return rms(log_gaps - powers @ np.linalg.lstsq(powers, log_gaps)[0])
