"""One law for the N at which the PSNR gap closes, and its rivals.

    log gap = log threshold + s (log N* - log N),    N* = c P^γ d^δ / (1 + (t₀/t)^β)

with t images seen, P parameters and d pixels. N* grows as t^β while t ≪ t₀ and comes to rest for t ≫ t₀. It is fitted
by least squares in log gap to the cells whose gap lies in a window. δ and γ are 0 where the cells have one d or one P,
and γ where P follows from d. The rivals, which have fewer parameters, are

    logarithmic: N* = c P^γ d^δ ln(1 + t/t₀),    power: N* = c P^γ d^δ t^β,    proportional: N* = c P^γ d^δ t,
    parameters: N* = c P,    constant: N* = c.

By the logarithmic one N* never rests, and each doubling of a long training adds as much as the one before.

All are linear in s, s log c, sγ, sδ and sβ, but for β and t₀ of the first and t₀ of the second: over these the least
squares are sought.

What lies beyond the data is a bound and no number: t₀ if its interval reaches past the longest training, and with it c;
β at an end of the search.

Errors are root mean squares in natural logarithms: .1 is about 10 %.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize

from .gaps import UNKNOWN, Estimate, Vector, draws_of, interval, log_gaps_of, log_of, rms

LAWS = {
    "saturating": "N* = c P^γ d^δ / (1 + (t0/t)^β)",
    "logarithmic": "N* = c P^γ d^δ ln(1 + t/t0)",
    "power": "N* = c P^γ d^δ t^β",
    "proportional": "N* = c P^γ d^δ t",
    "parameters": "N* = c P",
    "constant": "N* = c",
}
"""The law and its rivals, by name."""

SOUGHT = {"saturating": ("beta", "log_t0"), "logarithmic": ("log_t0",)}
"""The parameters of a law in which log gap is not linear."""

LENGTHS = {"saturating": 3, "logarithmic": 2, "power": 2}
"""Numbers of images seen that one of them needs; the others need one."""

BETA = (0.1, 5.0)
"""Where β of the saturating law is sought."""

FURTHEST = 1000.0
"""t₀ is sought from the least t divided by this to the longest times this."""


@dataclass(frozen=True)
class Fit:
    """A law with its parameters, and the root mean square of what it leaves of log gap."""

    law: str
    s: float
    log_c: float
    residual: float
    beta: float | None = None
    log_t0: float | None = None
    gamma: float | None = None
    delta: float | None = None

    def log_n_star(self, at: pd.DataFrame) -> Vector:
        """log N* for rows of images_seen, parameters and pixels."""
        t, p, d = (log_of(at, key) for key in ("images_seen", "parameters", "pixels"))
        base = self.log_c + (self.gamma or 0) * p + (self.delta or 0) * d
        if self.law in SOUGHT:
            return base + _course(self.sought, t)[0]
        return base + {"power": (self.beta or 0) * t, "proportional": t, "parameters": p}.get(self.law, 0)

    def log_gap(self, at: pd.DataFrame) -> Vector:
        """log(gap / threshold) for the same rows with n_train."""
        return self.s * (self.log_n_star(at) - log_of(at, "n_train"))

    @property
    def sought(self) -> Vector:
        """The parameters named in SOUGHT, (1, number)."""
        return np.array([[getattr(self, name) for name in SOUGHT[self.law]]], dtype=float)

    @property
    def values(self) -> dict[str, float]:
        """The parameters by name."""
        t0 = None if self.log_t0 is None else math.exp(self.log_t0)
        named = {"s": self.s, "c": math.exp(self.log_c), "beta": self.beta, "t0": t0}
        known = {**named, "gamma": self.gamma, "delta": self.delta}
        return {key: value for key, value in known.items() if value is not None}


@dataclass(frozen=True)
class Fitted:
    """A law fitted to all replicates, and once to each of several draws of them: none if there is one replicate."""

    fit: Fit
    draws: Sequence[Fit]

    @property
    def everything(self) -> list[Fit]:
        return [self.fit, *self.draws]

    def interval(self, of: Callable[[Fit], float]) -> tuple[float, float]:
        """Of what is computed from a fit; NaN without draws."""
        return interval([of(fit) for fit in self.draws])

    def predicted(self, at: pd.DataFrame, scatter: Vector) -> tuple[float, float, float]:
        """N* for one row, and its interval over draws and over what measured ones were off by; NaN without either.

        Args:
            at: images_seen, parameters and pixels.
            scatter: log N* measured less fitted, at as many lengths as there are; either sign counts.
        """
        centre = float(self.fit.log_n_star(at)[0])
        drawn = np.array([fit.log_n_star(at)[0] for fit in self.draws] or [centre])
        if not (self.draws or len(scatter)):
            return math.exp(centre), math.nan, math.nan
        off = np.concatenate([scatter, -scatter]) if len(scatter) else np.zeros(1)
        low, high = interval((drawn[:, None] + off).ravel())
        return math.exp(centre), math.exp(low), math.exp(high)


def fit(law: str, cells: pd.DataFrame, log_gaps: Vector) -> Fit | None:
    """The least squares of a law; None where there are too few cells for it, or the gap does not fall with N.

    Args:
        law: one of LAWS.
        cells: n_train, images_seen, parameters and pixels of each.
        log_gaps: log(gap / threshold).
    """
    if cells["n_train"].nunique() < 2 or cells["images_seen"].nunique() < LENGTHS.get(law, 1):
        return None
    t, log_n, free = log_of(cells, "images_seen"), log_of(cells, "n_train"), _free(law, cells)
    others = np.column_stack([np.ones(len(cells)), *free.values()])
    if len(cells) <= 1 + others.shape[1] + len(SOUGHT.get(law, ())):
        return None
    basis = np.linalg.qr(others)[0]
    left = log_gaps - basis @ (basis.T @ log_gaps)

    def slopes(offsets: Vector) -> tuple[Vector, Vector]:
        """s, and the sum of squares that is left, for each row of log N* without its free parts, (n, cells)."""
        x = offsets - log_n
        x = x - x @ basis @ basis.T
        size, along = (x * x).sum(axis=1), x @ left
        s = np.divide(along, size, out=np.zeros_like(size), where=size > 1e-9)
        return s, left @ left - s * along

    offset = {"proportional": t, "parameters": log_of(cells, "parameters")}.get(law, 0 * t)
    found: dict[str, float] = {}
    if law in SOUGHT:
        least = _least(lambda x: slopes(_course(x, t))[1], t, SOUGHT[law])
        offset, found = _course(least[None], t)[0], dict(zip(SOUGHT[law], least.tolist(), strict=True))
    s, rest = (float(values[0]) for values in slopes(offset[None]))
    if s <= 0:
        return None
    log_c, *exponents = (np.linalg.lstsq(others, log_gaps - s * (offset - log_n))[0] / s).tolist()
    found |= dict(zip(free, exponents, strict=True))
    return Fit(law, s, log_c, math.sqrt(max(rest, 0) / len(cells)), **found)


def _least(squares: Callable[[Vector], Vector], log_t: Vector, names: Sequence[str]) -> Vector:
    """What has the least of squares, which are of each row of (n, names): a grid, then a search."""
    ends = float(log_t.min()) - math.log(FURTHEST), float(log_t.max()) + math.log(FURTHEST)
    axes = {"beta": (BETA, np.geomspace(*BETA, 14)), "log_t0": (ends, np.linspace(*ends, 40))}
    bounds, ticks = zip(*(axes[name] for name in names), strict=True)
    grid = np.stack(np.meshgrid(*ticks), axis=-1).reshape(-1, len(names))
    options = {"xatol": 1e-6, "fatol": 1e-12, "maxfev": 600}
    start = grid[squares(grid).argmin()]
    found = minimize(lambda x: squares(x[None])[0], start, method="Nelder-Mead", bounds=bounds, options=options)
    return np.asarray(found.x, dtype=float)


def _course(sought: Vector, log_t: Vector) -> Vector:
    """log of 1/(1 + (t₀/t)^β) for each pair (β, log t₀), and of ln(1 + t/t₀) for each log t₀ alone: (n, 2 or 1) ↦
    (n, cells)."""
    later = log_t - sought[:, -1:]
    if sought.shape[1] == 1:
        return np.log(np.logaddexp(0, later))
    return -np.logaddexp(0, -sought[:, :1] * later)


def _free(law: str, cells: pd.DataFrame) -> dict[str, Vector]:
    """Exponent → the logarithm that it multiplies in log N*, without those that follow from the ones before them."""
    keys = {"beta": "images_seen"} if law == "power" else {}
    if law in ("saturating", "logarithmic", "power", "proportional"):
        keys |= {"delta": "pixels", "gamma": "parameters"}
    found: dict[str, Vector] = {}
    for name, key in keys.items():
        columns = np.column_stack([*found.values(), log_of(cells, key)])
        if np.linalg.matrix_rank(columns - columns.mean(axis=0), tol=1e-6) == columns.shape[1]:
            found[name] = columns[:, -1]
    return found


def fit_laws(gaps: pd.DataFrame, threshold: float) -> dict[str, Fitted]:
    """Those of LAWS that can be fitted to cells of gaps; `parameters` only where they have several P.

    Args:
        gaps: as `gaps_of` makes it, within a window.
        threshold: in dB, the gap at N*.
    """
    cells = gaps.index.to_frame(index=False)
    laws = [law for law in LAWS if law != "parameters" or cells["parameters"].nunique() > 1]
    fits = {law: fit(law, cells, log_gaps_of(gaps.mean(axis=1), threshold)) for law in laws}
    draws: dict[str, list[Fit]] = {law: [] for law in laws}
    for means, count in draws_of(gaps):
        there = ~np.isnan(means)
        for law in laws:
            if again := fit(law, cells[there], log_gaps_of(means[there], threshold)):
                draws[law] += [again] * count
    return {law: Fitted(found, draws[law]) for law, found in fits.items() if found}


def laws_table(
    fits: Mapping[str, Fitted], gaps: pd.DataFrame, stars: pd.DataFrame, threshold: float
) -> list[dict[str, Any]]:
    """A row a law: `law`, `form`, number of `parameters`, of `cells`, `residual` of log gap, and the errors on what was
    left out of the fit: of log gap and, `_n_star`, of log N*, with lengths beyond half the longest (`longest_out`) and
    with one resolution after the other (`resolution_out`). NaN where the rest is too little for the law.

    Args:
        fits, gaps, threshold: of and as in `fit_laws`.
        stars: curve, images_seen, n_star, parameters and pixels.
    """
    cells, log_gaps = gaps.index.to_frame(index=False), log_gaps_of(gaps.mean(axis=1), threshold)
    rows = []
    for law, fitted in fits.items():
        half = cells["images_seen"].max() / 2
        parts = {
            "longest_out": [(cells["images_seen"] > half, stars["images_seen"] > half)],
            "resolution_out": [(cells["pixels"] == d, stars["pixels"] == d) for d in cells["pixels"].unique()],
        }
        row = {
            "law": law,
            "form": LAWS[law],
            "parameters": len(fitted.fit.values),
            "cells": len(cells),
            "residual": fitted.fit.residual,
        }
        for name, held_out in parts.items():
            errors, star_errors = list[float](), list[float]()
            for out, stars_out in held_out:
                if rest := fit(law, cells[~out], log_gaps[~out]):
                    errors += (rest.log_gap(cells[out]) - log_gaps[out]).tolist()
                    star_errors += misses(rest, stars[stars_out]).tolist()
            row[name], row[f"{name}_n_star"] = rms(errors), rms(star_errors)
        rows.append(row)
    return rows


def misses(fit: Fit, stars: pd.DataFrame) -> Vector:
    """log N* measured less that of a fit, where it was measured."""
    known = stars[stars["n_star"].notna()]
    return log_of(known, "n_star") - fit.log_n_star(known)


def parameters_table(fits: Mapping[str, Fitted], gaps: pd.DataFrame) -> list[dict[str, Any]]:
    """A row a law and parameter: `law`, `parameter` and the fields of its `Estimate`."""
    lengths = gaps.index.get_level_values("images_seen")
    rows = []
    for law, fitted in fits.items():
        found = {name: Estimate(value, *fitted.interval(_parameter(name))) for name, value in fitted.fit.values.items()}
        if law in SOUGHT:
            found |= _identified(found, fitted, lengths.min(), lengths.max())
        rows += [{"law": law, "parameter": name, **asdict(estimate)} for name, estimate in found.items()]
    return rows


def _parameter(name: str) -> Callable[[Fit], float]:
    return lambda fit: fit.values.get(name, math.nan)


def _identified(found: Mapping[str, Estimate], fitted: Fitted, shortest: float, longest: float) -> dict[str, Estimate]:
    """t₀, β and c as far as lengths from the shortest to the longest tell them. Of the saturating law β where N* grows
    on the way, and c where it comes to rest; of the logarithmic one, a line in log t that tells t₀ from afar, c where
    N* bends. Where it does not yet, c is beyond what it would be if it did so at the longest."""
    saturating = fitted.fit.law == "saturating"
    t0 = found["t0"].within(shortest if saturating else shortest / FURTHEST * 1.01, longest)
    told = {"t0": t0}
    early, late = ((t0.bound or side)[0] != side for side in "><")
    if saturating:
        told["beta"] = UNKNOWN if early else found["beta"].within(BETA[0] * 1.01, BETA[1] / 1.01)
    elif early:
        told["c"] = UNKNOWN
    if late:
        there = np.log([longest])
        courses = [_course(np.array([[fit.beta or 1, fit.log_t0]]), there).item() for fit in fitted.everything]
        so_far = [fit.log_c + course for fit, course in zip(fitted.everything, courses, strict=True)]
        told["c"] = Estimate(bound=f"> {math.exp(interval(so_far)[0]):.3g}")
    return told
