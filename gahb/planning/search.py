"""Where to train next in the search for N*, the training-set size at which a curve crosses a threshold.

A curve is all trials that differ in nothing but N, subset and seed. Its *height* at N, the mean over subsets and seeds,
is positive below N*, 0 there and negative above, and falls by about the number of e-folds that N grows. With x = log N,
what is measured of one subset and seed is

    level + slope · (x - x₀) + bend(x) + images(x) + noise,    x₀ where the height measured is nearest to 0.

Nothing is known of the level. The slope is SLOPE ± SLOPE_SD, or, once other curves have crossed, theirs ±
AMONG_CURVES. The bend is integrated Brownian motion, the prior of cubic smoothing splines: the slope changes by
√(BEND · distance), so near trials count for more. The images of a subset make its trials higher or lower whatever the
seed: by τ, and since subsets are nested, with the correlation of means over n < n' images of one set, √(n/n'). The
noise of a training has the standard deviation σ√(1 + height²). σ and τ are the same for all curves; they are integrated
over SIGMAS and IMAGES, weighted by a prior and by the evidence of all trials.

All of this is normal, so each N has a probability that the height is positive there. As the height falls with N, N*
lies above every N where that is at least 97.5 % and below every larger one where it is at most 2.5 %: the interval,
given the images of A and B. Next comes what would leave it narrowest, were it measured as expected: beyond N* while an
end is open or all trials are on one side of N*, then around it, with another seed where a further N would tell less.

Nothing here is random or remembered: what is proposed is a function of what is known, in whatever order that came.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Array = NDArray[np.floating[Any]]

SLOPE, SLOPE_SD, AMONG_CURVES = -1.0, 0.5, 0.25
"""The slope at N*, the standard deviation from there, and that from the mean of other curves' slopes."""

BEND = 0.1
"""The variance of the slope's change over an e-fold of N."""

LEVEL = 10.0
"""The standard deviation of the level: more than any height."""

SIGMAS, IMAGES = (each.ravel() for each in np.meshgrid(np.geomspace(0.03, 0.6, 8), np.geomspace(0.03, 1, 6)))
"""σ and τ of each noise over which is integrated."""

NOISE, FREEDOM = 0.1, 2
"""The prior of both, a scaled inverse χ² of so many degrees of freedom."""

TAIL = 0.025
"""The probability on either side of an interval."""

GRID, STRIDE = 200, 3
"""How many N are looked at for the ends of an interval; of how many of these one may be the next."""

AT_ONCE = 3
"""The most units that one curve is given at once, while an end of its interval is open."""

FLAT = 0.25
"""The gap, in thresholds, below which its height is no logarithm but goes on straight, as a gap may be negative."""


def of_gap(gap: float, threshold: float) -> float:
    """The height of a PSNR gap, log(gap / threshold) from FLAT on; both in dB."""
    ratio = gap / threshold
    return math.log(ratio) if ratio > FLAT else math.log(FLAT) + ratio / FLAT - 1


def of_excess(excess: float, threshold: float) -> float:
    """The height of a pair's similarity beyond chance, which rises with N: the threshold's logit less its own, to first
    order around the threshold in (0, 1)."""
    return (threshold - excess) / (threshold * (1 - threshold))


class Point(NamedTuple):
    """What was measured: the height at N of a replicate, such as ("A", 0) for a subset and seed."""

    n_train: int
    replicate: tuple[str, int]
    height: float


def points(n_train: int, seed: int, values: Mapping[str, float], height: Callable[[float], float]) -> list[Point]:
    """What was measured at an N with a seed: value by subset. The heights' mean is the height of the values' mean, as
    N* is where that crosses the threshold."""
    heights = {subset: height(value) for subset, value in values.items()}
    shift = height(float(np.mean(list(values.values())))) - float(np.mean(list(heights.values())))
    return [Point(n_train, (subset, seed), own + shift) for subset, own in heights.items()]


def grid_sizes(least: int, largest: int, within: float) -> list[int]:
    """The N of a grid over a range, ends included, whose steps are at most that factor, but for rounding."""
    steps = math.ceil(math.log(largest / least) / math.log(within))
    return list(dict.fromkeys(np.geomspace(least, largest, steps + 1).round().astype(int).tolist()))


@dataclass(frozen=True)
class Curve:
    """A curve and what is known of it.

    Args:
        name: of the curve.
        least: N that may be tried.
        largest: the same.
        seed: the first.
        points: what was measured, in any order.
    """

    name: str
    least: int
    largest: int
    seed: int = 0
    points: Sequence[Point] = ()


class Unit(NamedTuple):
    """What is trained together: A and B of a curve at an N with a seed; and why there."""

    curve: str
    n_train: int
    seed: int
    why: str


@dataclass(frozen=True)
class Estimate:
    """What is known of a curve's N*: the ends of its interval, None where they are not known within the range; `bound`
    is "< least N" or "> largest N" where it lies outside; `slope` is the height's at N*."""

    n_star: float | None = None
    low: float | None = None
    high: float | None = None
    bound: str | None = None
    slope: float | None = None

    @property
    def factor(self) -> float:
        """High over low."""
        return self.high / self.low if self.low and self.high else math.inf

    @property
    def whole(self) -> bool:
        """Whether no whole number lies between the ends."""
        return bool(self.low and self.high and math.ceil(self.high) - math.floor(self.low) <= 1)


class Search:
    """What is known of some curves, and what to train next.

    Args:
        curves: in the order in which they begin.
        within: what high over low shall be at most, above 1.
        subsets: the replicates of a unit.
    """

    def __init__(self, curves: Sequence[Curve], within: float, subsets: Sequence[str] = ("A", "B")) -> None:
        self.curves = {curve.name: replace(curve, points=sorted(curve.points)) for curve in curves}
        self.within, self.subsets = within, subsets
        begun = [curve.name for curve in curves if curve.points]
        self._fit({name: (SLOPE, SLOPE_SD) for name in begun})
        slopes = {name: found.slope for name, found in self.estimates.items() if found.slope is not None}
        others = {name: [slope for other, slope in slopes.items() if other != name] for name in begun}
        if any(others.values()):
            self._fit({n: (float(np.mean(o)), AMONG_CURVES) if o else (SLOPE, SLOPE_SD) for n, o in others.items()})

    def _fit(self, priors: Mapping[str, tuple[float, float]]) -> None:
        """Fit each curve's points, with priors of their slopes: `weights` are the probabilities of the noises,
        `estimates` what is known of each curve's N*."""
        self.fits = {name: Fit(self.curves[name].points, *prior, self.subsets) for name, prior in priors.items()}
        logs = np.zeros(len(SIGMAS))
        for noise in (SIGMAS, IMAGES):
            logs -= FREEDOM * (np.log(noise) + (NOISE / noise) ** 2 / 2)
        for fit in self.fits.values():
            logs += fit.evidence
        weights = np.exp(logs - logs.max())
        self.weights: Array = weights / weights.sum()
        self.estimates = {name: self._estimate(curve) for name, curve in self.curves.items()}

    def open(self, name: str) -> bool:
        """Whether a curve's interval is wider than asked for, or all its trials are on one side of N*, and that may be
        mended within the range."""
        found = self.estimates[name]
        wide = found.factor > self.within and not found.whole
        return not found.bound and (wide or bool(self._one_sided(self.curves[name])))

    def _one_sided(self, curve: Curve) -> int:
        """1 if all trials of a curve have less images than its N*, -1 if all have more; else 0, and where nothing
        remains to be tried on the other side."""
        star, sizes = self.estimates[curve.name].n_star, [point.n_train for point in curve.points]
        if star is None or not curve.least < star < curve.largest:
            return 0
        return (max(sizes) < star) - (min(sizes) > star)

    def proposals(self, room: int | None = None, ended: Collection[str] = ()) -> list[Unit]:
        """What to train next; nothing where all is known.

        Args:
            room: how many units are trained at once; the first curves come first, and if there is room for more than a
                unit of each, those whose interval has an open end get more. One of each curve if left out.
            ended: curves that get none.
        """
        names = [name for name in self.curves if name not in ended and self.open(name)]
        room = len(names) if room is None else max(1, room)
        numbers = dict.fromkeys(names[:room], 1)
        for _ in range(1, AT_ONCE):
            for name in numbers:
                if sum(numbers.values()) < room and math.isinf(self.estimates[name].factor):
                    numbers[name] += 1
        return [unit for name, count in numbers.items() for unit in self._next(self.curves[name], count)]

    def _estimate(self, curve: Curve) -> Estimate:
        if not curve.points:
            return Estimate()
        margin = math.log(self.within)
        x = np.linspace(math.log(curve.least) - margin, math.log(curve.largest) + margin, GRID)
        first, last = _ends(self._positive(curve.name, x))
        if first >= 0 and x[first] >= math.log(curve.largest):
            return Estimate(low=curve.largest, bound=f"> {curve.largest}")
        if last < GRID and x[last] <= math.log(curve.least):
            return Estimate(high=curve.least, bound=f"< {curve.least}")
        x = np.linspace(x[max(first, 0)], x[min(last, GRID - 1)], GRID)  # once more, between the ends
        positive = self._positive(curve.name, x)
        inner = [float(np.exp(x[i])) for i in np.clip(_ends(positive), 0, GRID - 1)]
        low, high = (end if known else None for end, known in zip(inner, (first >= 0, last < GRID), strict=True))
        if not (low and high):
            return Estimate(low=low, high=high)
        mean = self.weights @ self.fits[curve.name].heights(x)[0]
        slope = float((mean[-1] - mean[0]) / (x[-1] - x[0]))
        return Estimate(float(np.exp(x[np.flatnonzero(positive >= 0.5)[-1]])), low, high, slope=slope)

    def _positive(self, name: str, x: Array) -> Array:
        """The probability that the height is positive at each x = log N."""
        mean, sd = self.fits[name].heights(x)
        probability: Array = self.weights @ ndtr(mean / sd)
        return probability

    def _next(self, curve: Curve, count: int) -> list[Unit]:
        """The next units of a curve, each as if those before had been measured as expected."""
        if not curve.points:
            return self._first(curve, count)
        found, fit, units = self.estimates[curve.name], self.fits[curve.name], list[Unit]()
        why = f"to narrow {found.low:.4g} … {found.high:.4g}" if found.low and found.high else "to bracket N*"
        for _ in range(count):
            n_train, seed = self._best(curve, fit)
            units.append(Unit(curve.name, n_train, seed, why))
            expected = float((self.weights @ fit.heights(np.log([n_train]))[0])[0])
            more = [Point(n_train, (subset, seed), expected) for subset in self.subsets]
            fit = Fit([*fit.points, *more], *fit.prior, self.subsets)
        return units

    def _first(self, curve: Curve, count: int) -> list[Unit]:
        """Where a curve begins: at the N* of the last curve that has one, or spread over the range."""
        if known := [(name, found.n_star) for name, found in self.estimates.items() if found.n_star]:
            name, star = known[-1]
            n_train = min(max(round(star), curve.least), curve.largest)
            return [Unit(curve.name, n_train, curve.seed, f"where {name} crosses")]
        parts = [(2 * i + 1) / (2 * count) for i in range(count)]
        tried = [round(curve.least * (curve.largest / curve.least) ** part) for part in parts]
        return [Unit(curve.name, n_train, curve.seed, "over the range") for n_train in dict.fromkeys(tried)]

    def _best(self, curve: Curve, fit: "Fit") -> tuple[int, int]:
        """N and seed of the unit that would leave the narrowest interval."""
        found, margin = self.estimates[curve.name], math.log(self.within)
        ends = math.log(found.low or curve.least) - margin, math.log(found.high or curve.largest) + margin
        x = np.linspace(*ends, GRID)
        tried = np.unique(np.exp(x[::STRIDE]).round().clip(curve.least, curve.largest))
        if found.n_star and (side := self._one_sided(curve)):
            tried = np.union1d(tried, math.ceil(found.n_star) if side > 0 else math.floor(found.n_star))
            tried = tried[side * tried >= side * found.n_star]
        mean, sd = fit.after(x, np.log(tried))
        positive = np.tensordot(self.weights, ndtr(mean / sd), 1)
        positive = np.maximum.accumulate(positive[::-1])[::-1]  # it falls with N
        width = np.minimum(positive, 1 - positive).sum(axis=0)
        n_train = int(tried[width.argmin()])
        used = [point.replicate[1] for point in fit.points if point.n_train == n_train]
        return n_train, max(used) + 1 if used else curve.seed


class Fit:
    """The posterior of a curve's height for each of the noises.

    Args:
        points: what was measured, at least one.
        slope: the mean of the slope's prior.
        slope_sd: its standard deviation.
        subsets: the replicates of a unit, over which the height is averaged.
    """

    def __init__(self, points: Sequence[Point], slope: float, slope_sd: float, subsets: Sequence[str]) -> None:
        self.points, self.prior, self.count = points, (slope, slope_sd), len(subsets)
        self.x = np.log([point.n_train for point in points])
        heights = np.array([point.height for point in points])
        self.x0 = float(self.x[np.abs(heights).argmin()])
        same = np.array([[a.replicate[0] == b.replicate[0] for b in points] for a in points])
        noise = SIGMAS[:, None] ** 2 * (1 + heights**2) + 1e-9
        covariance = self._smooth(self.x, self.x) + IMAGES[:, None, None] ** 2 * same * _nested(self.x, self.x)
        self.root = np.linalg.cholesky(covariance + noise[:, None] * np.eye(len(points)))
        self.rest = self._solve(np.tile((heights - slope * (self.x - self.x0))[:, None], (len(SIGMAS), 1, 1)))
        determinant = np.log(np.diagonal(self.root, axis1=1, axis2=2)).sum(axis=1)
        self.evidence = -(self.rest[..., 0] ** 2).sum(axis=1) / 2 - determinant

    def heights(self, x: Array) -> tuple[Array, Array]:
        """Mean and standard deviation at each x, (noises, x) each."""
        told = self._solve(self._covariance(self.x, x))
        mean = self.prior[0] * (x - self.x0) + (told * self.rest).sum(axis=1)
        return mean, np.sqrt(self._variance(x) - (told**2).sum(axis=1))

    def after(self, x: Array, units: Array) -> tuple[Array, Array]:
        """The same at each x, once another unit has been measured as expected, for units at each of some other x:
        (noises, x, 1) and (noises, x, units)."""
        mean, sd = self.heights(x)
        expected, of_units = self.heights(units)
        told, of_them = self._solve(self._covariance(self.x, x)), self._solve(self._covariance(self.x, units))
        shared = self._covariance(x, units) - np.swapaxes(told, 1, 2) @ of_them
        variance = of_units**2 + SIGMAS[:, None] ** 2 * (1 + expected**2) / self.count
        left = sd[..., None] ** 2 - shared**2 / variance[:, None, :]
        return mean[..., None], np.sqrt(np.maximum(left, 1e-12))

    def _solve(self, right: Array) -> Array:
        return np.linalg.solve(self.root, right)

    def _smooth(self, a: Array, b: Array) -> Array:
        """The prior covariance of level, slope and bend at a (n,) and b (m,): (n, m)."""
        a, b = a[:, None] - self.x0, b - self.x0
        near, far = np.minimum(abs(a), abs(b)), np.maximum(abs(a), abs(b))
        bend = np.where(a * b > 0, BEND * near**2 * (3 * far - near) / 6, 0)
        return LEVEL**2 + self.prior[1] ** 2 * a * b + bend

    def _covariance(self, a: Array, b: Array) -> Array:
        """That of the height at b with itself, or what is measured of any subset, at a: (noises, n, m)."""
        return self._smooth(a, b) + IMAGES[:, None, None] ** 2 / self.count * _nested(a, b)

    def _variance(self, x: Array) -> Array:
        """The prior variance of the height at each x, (noises, x)."""
        far = np.abs(x - self.x0)
        smooth = LEVEL**2 + (self.prior[1] * far) ** 2 + BEND * far**3 / 3
        return smooth + IMAGES[:, None] ** 2 / self.count


def _nested(a: Array, b: Array) -> Array:
    """The correlation of means over n = exp(a) and n' = exp(b) images of one nested set, (n,) and (m,): (n, m)."""
    return np.exp(-np.abs(a[:, None] - b) / 2)


def _ends(positive: Array) -> tuple[int, int]:
    """The last row in which a height is positive with probability 1 - TAIL, -1 if there is none; and the next in which
    it is so with TAIL, the number of rows if there is none."""
    first = max(np.flatnonzero(positive >= 1 - TAIL), default=-1)
    last = min((row for row in np.flatnonzero(positive <= TAIL) if row > first), default=len(positive))
    return int(first), int(last)
