"""PSNR gaps over N × images seen, of each cell and replicate, and what both `law` and `collapse` need to estimate from
them: intervals are 95 % percentile bootstraps over each curve's replicates, as in `scaling`.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .scaling import CONFIDENCE, FLOOR

RESAMPLES = 300

CELL = ["curve", "parameters", "pixels", "n_train", "images_seen"]
"""What tells cells apart. Parameters and pixels are the curve's."""

Vector = NDArray[np.float64]


def gaps_of(evaluations: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The gap in dB of each cell (rows, CELL) and replicate (columns, subset and seed); NaN for what is not there."""
    return evaluations.pivot_table(index=CELL, columns=["subset", "seed"], values=metric, sort=False)


def within(gaps: pd.DataFrame, window: tuple[float, float]) -> pd.DataFrame:
    """The cells whose mean gap lies in a window, in dB."""
    return gaps[gaps.mean(axis=1).between(*window)]


def draws_of(gaps: pd.DataFrame) -> Iterator[tuple[Vector, int]]:
    """Means of each cell over draws of replicates, each curve's with replacement from its own, NaN in a cell that lacks
    all that were drawn; and how often they were drawn. Nothing where no curve has two replicates."""
    values, curves = gaps.to_numpy(), gaps.index.get_level_values("curve")
    rng = np.random.default_rng(0)
    rows, drawn = list[NDArray[np.bool_]](), list[NDArray[np.int64]]()
    for curve in curves.unique():
        rows.append(curves == curve)
        (own,) = np.nonzero(~np.isnan(values[rows[-1]]).all(axis=0))
        drawn.append(np.sort(rng.choice(own, (RESAMPLES, len(own))), axis=1))
    if max(map(len, (some[0] for some in drawn)), default=0) < 2:
        return
    ends = np.cumsum([some.shape[1] for some in drawn])[:-1]
    different, times = np.unique(np.hstack(drawn), axis=0, return_counts=True)
    for chosen, count in zip(different, times, strict=True):
        means = np.full(len(values), np.nan)
        for of_curve, columns in zip(rows, np.split(chosen, ends), strict=True):
            some = values[of_curve][:, columns]
            known = (~np.isnan(some)).sum(axis=1)
            means[of_curve] = np.where(known > 0, np.nansum(some, axis=1) / np.maximum(known, 1), np.nan)
        yield means, int(count)


def log_gaps_of(gaps: Vector | pd.Series, threshold: float) -> Vector:
    """log(gap / threshold); a gap below FLOOR, which the mean of a draw may be, stands at it."""
    return np.log(np.maximum(np.asarray(gaps, dtype=float), FLOOR) / threshold)


@dataclass(frozen=True)
class Estimate:
    """A value with its interval, NaN of a single replicate; or a `bound` in their place where the cells do not tell it:
    "> 1.2e+06", "< 500", "not determined"."""

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    bound: str | None = None

    def within(self, least: float, most: float) -> "Estimate":
        """As a bound, where the value or its interval leaves what can be told."""
        low, high = np.nanmin([self.value, self.low]), np.nanmax([self.value, self.high])
        if least <= low and high <= most:
            return self
        if low < least and high > most:
            return UNKNOWN
        return Estimate(bound=f"> {min(low, most):.3g}" if high > most else f"< {max(high, least):.3g}")


UNKNOWN = Estimate(bound="not determined")


def interval(values: Sequence[float] | Vector) -> tuple[float, float]:
    """The interval that draws span; NaN of none."""
    if not len(values):
        return math.nan, math.nan
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def rms(errors: Sequence[float] | Vector) -> float:
    """The root mean square; NaN of none."""
    return float(np.sqrt(np.mean(np.square(errors)))) if len(errors) else math.nan


def log_of(table: pd.DataFrame, key: str) -> Vector:
    """The natural logarithms of a column."""
    return np.log(table[key].to_numpy(dtype=float))
