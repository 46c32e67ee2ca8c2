import itertools
import math
import random
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from gahb.planning.search import (
    AT_ONCE,
    FLAT,
    IMAGES,
    SIGMAS,
    Curve,
    Fit,
    Point,
    Search,
    Unit,
    grid_sizes,
    of_excess,
    of_gap,
    points,
)

LEAST, LARGEST, WITHIN = 1, 100_000, 1.3
MOST = 20
"""Pairs after which a search of a test ends."""

Measure = Callable[[Unit], list[Point]]


def law(n_star: float, slope: float = 1.0, bend: float = 0.0, noise: float = 0.0, seed: int = 0) -> Measure:
    """What is measured where the gap falls like a power of N, is 1 dB at N*, bends, ends at 15 dB, and scatters over
    subsets and seeds."""

    def gap(n_train: int) -> float:
        d = math.log(n_train / n_star)
        power = math.exp(-slope * d - bend * min(abs(d), 2) * (abs(d) - min(abs(d), 2) / 2))
        return 15 * power / (14 + power)

    def measure(unit: Unit) -> list[Point]:
        draw = np.random.default_rng([seed, unit.n_train, unit.seed])
        gaps = {subset: gap(unit.n_train) * math.exp(noise * draw.normal()) for subset in "AB"}
        return points(unit.n_train, unit.seed, gaps, lambda gap: of_gap(gap, 1.0))

    return measure


def state(known: Mapping[str, list[Point]], within: float = WITHIN) -> Search:
    return Search([Curve(name, LEAST, LARGEST, points=found) for name, found in known.items()], within)


def rounds_of(laws: Mapping[str, Measure], room: int | None = None) -> tuple[Search, list[list[Unit]]]:
    """Where a search ends, and its rounds."""
    known: dict[str, list[Point]] = {name: [] for name in laws}
    rounds: list[list[Unit]] = []
    while (units := state(known).proposals(room)) and sum(map(len, rounds)) < MOST:
        rounds.append(units)
        for unit in units:
            known[unit.curve] += laws[unit.curve](unit)
    return state(known), rounds


@pytest.mark.parametrize("noise", [0.03, 0.1])
def test_n_star_lies_in_an_interval_as_narrow_as_asked_for_at_half_the_cost_of_a_grid(noise: float) -> None:
    draw, inside, narrow, cost, count = np.random.default_rng(int(100 * noise)), 0, 0, 0, 30
    for i in range(count):
        star = math.exp(draw.uniform(1, 10.5))
        found, rounds = rounds_of({"c": law(star, draw.uniform(0.6, 1.6), 0.1 * draw.normal(), noise, i)})
        low, high = found.estimates["c"].low, found.estimates["c"].high
        inside += bool(low and high and low <= star <= high)
        narrow += found.estimates["c"].factor <= WITHIN
        assert len(rounds) <= len(grid_sizes(LEAST, LARGEST, WITHIN)) / 2
        cost += len(rounds)
    assert inside >= 0.9 * count and narrow >= 0.95 * count
    assert cost / count <= len(grid_sizes(LEAST, LARGEST, WITHIN)) / 6


def test_the_more_a_search_knows_the_narrower_it_may_be_asked_to_be() -> None:
    measure, stars = law(1234.0), []
    for within in (3.0, 1.3, 1.05):
        known: list[Point] = []
        while units := state({"c": known}, within).proposals():
            known += measure(units[0])
        found = state({"c": known}, within).estimates["c"]
        assert found.factor <= within and found.low and found.high and found.low <= 1234 <= found.high
        stars.append(found.n_star)
    assert stars[-1] == pytest.approx(1234, rel=0.02)


@pytest.mark.parametrize(("star", "bound"), [(1e7, f"> {LARGEST}"), (1e-3, f"< {LEAST}")])
def test_where_n_star_lies_outside_the_range_the_search_ends_with_a_bound(star: float, bound: str) -> None:
    found, rounds = rounds_of({"c": law(star, noise=0.05)})
    estimate = found.estimates["c"]
    assert estimate.bound == bound and estimate.n_star is None
    assert (estimate.low, estimate.high) == ((LARGEST, None) if star > 1 else (None, LEAST))
    assert len(rounds) <= 4


def test_what_is_proposed_does_not_depend_on_the_order_of_the_results() -> None:
    measure = law(300.0, noise=0.1)
    known: list[Point] = []
    for _ in range(4):
        (unit,) = state({"c": known}).proposals()
        known += measure(unit)
        shuffled = random.Random(0).sample(known, len(known))
        assert state({"c": shuffled}).proposals() == state({"c": known}).proposals()
        assert state({"c": shuffled}).estimates == state({"c": known}).estimates


def test_a_curve_begins_where_another_crosses() -> None:
    first, rounds = rounds_of({"c": law(40.0)})
    known = {"c": list(first.curves["c"].points), "d": list[Point]()}
    (unit,) = state(known).proposals()
    assert unit.curve == "d" and unit.n_train == round(first.estimates["c"].n_star or 0) == 40
    assert rounds[0][0].n_train == round(math.sqrt(LEAST * LARGEST)) and "c crosses" in unit.why
    _, second = rounds_of({"c": law(40.0), "d": law(55.0)}, room=1)
    assert [unit.curve for (unit,) in second] == sorted(unit.curve for (unit,) in second)
    assert sum(unit.curve == "d" for (unit,) in second) < len(rounds)


def test_an_interval_counts_once_there_are_trials_on_both_sides_of_n_star() -> None:
    first, _ = rounds_of({"c": law(40.0)})
    for star, side in ((40.3, 1), (39.7, -1)):
        known = {"c": list(first.curves["c"].points), "d": law(star)(Unit("d", 40, 0, ""))}
        found = state(known, within=3)
        assert found.estimates["d"].factor < 3 and found.open("d")
        (unit,) = found.proposals()
        assert side * unit.n_train > side * 40 and not state({**known, "d": [*known["d"], *law(star)(unit)]}).open("d")


def test_the_slope_of_other_curves_is_learned() -> None:
    steep, _ = rounds_of({"c": law(40.0, slope=2.5)})
    known = {"c": list(steep.curves["c"].points), "d": law(500.0, slope=2.5)(Unit("d", 40, 0, ""))}
    assert (steep.estimates["c"].slope or 0) < -1.5
    alone, beside = state({"d": known["d"]}).fits["d"], state(known).fits["d"]
    assert alone.prior[0] == -1 and beside.prior[0] == pytest.approx(steep.estimates["c"].slope, rel=0.1)


def test_room_for_several_is_used_while_an_end_is_open() -> None:
    units = state({"c": []}).proposals(room=8)
    assert len(units) == AT_ONCE and [unit.n_train for unit in units] == [7, 316, 14678]
    units = state({"c": [], "d": [], "e": []}).proposals(room=2)
    assert [unit.curve for unit in units] == ["c", "d"]
    units = state({"c": law(3e4)(Unit("c", 316, 0, ""))}).proposals(room=8)
    assert len({unit.n_train for unit in units}) == AT_ONCE and all("bracket" in unit.why for unit in units)
    bracketed = [point for n in (300, 3000) for point in law(1e3)(Unit("c", n, 0, ""))]
    (unit,) = state({"c": bracketed}).proposals(room=8)
    assert 300 < unit.n_train < 3000 and "narrow" in unit.why
    assert state({"c": bracketed}).proposals(ended=["c"]) == []


def test_where_no_further_n_would_tell_as_much_another_seed_is_tried() -> None:
    measure = law(5.5, noise=0.3)
    known = [point for n in range(1, 12) for point in measure(Unit("c", n, 0, ""))]
    for seed in range(1, 4):
        (unit,) = state({"c": known}, 1.02).proposals()
        assert 4 <= unit.n_train <= 7 and 1 <= unit.seed <= seed
        known += measure(unit)


def test_no_whole_number_between_the_ends_ends_the_search() -> None:
    found, rounds = rounds_of({"c": law(1.5)})
    estimate = found.estimates["c"]
    assert estimate.whole and not found.open("c") and len(rounds) < MOST
    assert estimate.low and estimate.high and 1 <= estimate.low < 1.5 < estimate.high <= 2


def test_what_another_unit_would_tell_is_what_it_tells() -> None:
    """The standard deviation of a height does not depend on the heights, but for the size of the noise."""
    known, noise = law(300.0)(Unit("c", 200, 0, "")) + law(300.0)(Unit("c", 900, 0, "")), 20
    fit, x = Fit(known, -1, 0.5, "AB"), np.log([100.0, 300.0, 500.0, 2000.0])
    for n_train in (500, 900):
        expected = float(fit.heights(np.log([n_train]))[0][noise, 0])
        more = [Point(n_train, (subset, 1), expected) for subset in "AB"]
        after = Fit([*known, *more], -1, 0.5, "AB")
        assert after.x0 == fit.x0
        mean, sd = (each[noise, :, 0] for each in fit.after(x, np.log([n_train])))
        told_mean, told_sd = (each[noise] for each in after.heights(x))
        assert sd == pytest.approx(told_sd, rel=1e-6) and mean == pytest.approx(told_mean, rel=1e-6)
        assert (sd < fit.heights(x)[1][noise]).all()


def test_the_posterior_is_that_of_the_normal_law_that_is_described() -> None:
    """With the bend's covariance, ∫ (a - u)(b - u) du from x₀ to the nearer of a and b, by quadrature."""
    known, noise = [point for n in (30, 300, 2000) for point in law(200.0, noise=0.2)(Unit("c", n, 0, ""))], 20
    fit, target = Fit(known, -0.8, 0.3, "AB"), math.log(700)
    x, heights = np.log([point.n_train for point in known]), np.array([point.height for point in known])
    assert fit.x0 == math.log(300)

    def smooth(a: float, b: float) -> float:
        a, b = a - fit.x0, b - fit.x0
        u = np.linspace(0, min(abs(a), abs(b)), 2001)
        bend = np.trapezoid((abs(a) - u) * (abs(b) - u), u) if a * b > 0 else 0
        return 100 + 0.3**2 * a * b + 0.1 * float(bend)

    def covariance(a: float, b: float, images: float) -> float:
        return smooth(a, b) + images * IMAGES[noise] ** 2 * math.exp(-abs(a - b) / 2)

    subsets = [point.replicate[0] for point in known]
    among = [
        [covariance(a, b, s == t) for b, t in zip(x, subsets, strict=True)] for a, s in zip(x, subsets, strict=True)
    ]
    measured = np.array(among) + np.diag(SIGMAS[noise] ** 2 * (1 + heights**2))
    shared = np.array([covariance(a, target, 0.5) for a in x])
    rest = heights + 0.8 * (x - fit.x0)
    mean, sd = (each[noise, 0] for each in fit.heights(np.array([target])))
    assert mean == pytest.approx(-0.8 * (target - fit.x0) + shared @ np.linalg.solve(measured, rest), rel=1e-4)
    variance = covariance(target, target, 0.5) - shared @ np.linalg.solve(measured, shared)
    assert sd == pytest.approx(math.sqrt(variance), rel=1e-4)


def test_heights_are_logarithms_that_go_on_below_nothing() -> None:
    assert of_gap(2.0, 2.0) == 0 and of_gap(2 * math.e, 2.0) == pytest.approx(1)
    assert of_gap(2 * FLAT * (1 + 1e-9), 2.0) == pytest.approx(of_gap(2 * FLAT, 2.0))
    heights = [of_gap(gap, 1.0) for gap in (3.0, 1.0, 0.3, 0.25, 0.1, 0.0, -0.1)]
    assert heights == sorted(heights, reverse=True)
    logit, step = lambda e: math.log(e / (1 - e)), 1e-4
    assert of_excess(0.4 + step, 0.4) == pytest.approx(logit(0.4) - logit(0.4 + step), rel=1e-3)


def test_the_mean_height_of_a_and_b_is_the_height_of_their_mean() -> None:
    found = points(8, 3, {"A": 0.5, "B": 2.0}, lambda gap: of_gap(gap, 1.0))
    assert np.mean([point.height for point in found]) == pytest.approx(of_gap(1.25, 1.0))
    assert [point.replicate for point in found] == [("A", 3), ("B", 3)]
    assert found[1].height - found[0].height == pytest.approx(math.log(4))
    assert points(8, 3, {"A": 0.5}, lambda gap: of_gap(gap, 1.0)) == [Point(8, ("A", 3), math.log(0.5))]


def test_a_grid_has_both_ends_and_steps_of_at_most_the_factor() -> None:
    sizes = grid_sizes(10, 3000, 1.3)
    assert sizes[0] == 10 and sizes[-1] == 3000 and sizes == sorted(set(sizes))
    assert all(b / a < 1.3 * 1.05 for a, b in itertools.pairwise(sizes)) and len(sizes) == 23
    assert grid_sizes(1, 4, 1.1) == [1, 2, 3, 4]
    assert len(SIGMAS) == len(IMAGES)
