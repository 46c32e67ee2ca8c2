"""The law is recovered from gaps that were made from it."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import pytest
from gahb_analysis.gaps import gaps_of, within
from gahb_analysis.law import Fitted, fit, fit_laws, laws_table, parameters_table

WINDOW = (0.1, 6.0)
LENGTHS = tuple(512 * 2**k for k in range(12))
S, C, BETA, T0 = 1.2, 200.0, 0.8, 2e4


def n_star(images: float, t0: float = T0, parameters: float = 1, pixels: float = 1) -> float:
    return C * parameters**0.5 * pixels**-0.25 / (1 + (t0 / images) ** BETA)


def logarithmic(images: float, t0: float = T0, parameters: float = 1, pixels: float = 1) -> float:
    return C * parameters**0.5 * pixels**-0.25 * math.log1p(images / t0)


def made(
    t0: float = T0,
    *,
    by: Callable[..., float] = n_star,
    lengths: Sequence[int] = LENGTHS,
    curves: Sequence[tuple[int, int]] = ((1, 1),),
    noise: float = 0.0,
    replicates: int = 4,
) -> pd.DataFrame:
    """Gaps by the law in the window, for curves of (parameters, pixels), each times a random factor."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "curve": f"{p} {d}",
            "parameters": p,
            "pixels": d,
            "n_train": n,
            "images_seen": images,
            "subset": "AB"[i % 2],
            "seed": i // 2,
            "psnr_gap": (by(images, t0, p, d) / n) ** S * math.exp(noise * rng.standard_normal()),
        }
        for p, d in curves
        for images in lengths
        for n in (2**k for k in range(14))
        for i in range(replicates)
    ]
    return within(gaps_of(pd.DataFrame(rows), "psnr_gap"), WINDOW)


def stars_of(gaps: pd.DataFrame, t0: float = T0) -> pd.DataFrame:
    cells = gaps.index.to_frame(index=False)[["curve", "parameters", "pixels", "images_seen"]].drop_duplicates()
    stars = [n_star(t, t0, p, d) for p, d, t in cells[["parameters", "pixels", "images_seen"]].to_numpy()]
    return cells.assign(n_star=stars)


def estimates(fits: dict[str, Fitted], gaps: pd.DataFrame, law: str = "saturating") -> dict[str, dict[str, float]]:
    return {row["parameter"]: row for row in parameters_table(fits, gaps) if row["law"] == law}


def test_the_law_is_recovered_where_n_star_comes_to_rest() -> None:
    gaps = made()
    fits = fit_laws(gaps, 1.0)
    found = fits["saturating"].fit
    assert (found.s, math.exp(found.log_c)) == (pytest.approx(S, rel=1e-4), pytest.approx(C, rel=1e-4))
    assert (found.beta, found.values["t0"]) == (pytest.approx(BETA, rel=1e-4), pytest.approx(T0, rel=1e-3))
    others = [fitted.fit.residual for law, fitted in fits.items() if law != "saturating"]
    assert found.residual < 1e-4 < 0.05 < min(others)
    assert all(row["bound"] is None for row in estimates(fits, gaps).values())
    twice = fit_laws(gaps, 2.0)["saturating"].fit
    assert twice.log_c == pytest.approx(found.log_c - math.log(2) / S, rel=1e-4), "N* of 2 dB is lower"


def test_intervals_hold_the_law_and_are_wider_with_noise() -> None:
    gaps = made(noise=0.2, replicates=8)
    rows = estimates(fit_laws(gaps, 1.0), gaps)
    truth = {"s": S, "c": C, "beta": BETA, "t0": T0}
    held = [rows[key]["low"] <= truth[key] <= rows[key]["high"] for key in truth]
    assert sum(held) >= 3, rows
    less = made(noise=0.02, replicates=8)
    narrower = estimates(fit_laws(less, 1.0), less)
    for key in truth:
        assert narrower[key]["high"] - narrower[key]["low"] < (rows[key]["high"] - rows[key]["low"]) / 3
    alone = made(noise=0.2, replicates=1)
    assert all(math.isnan(row["low"]) for row in estimates(fit_laws(alone, 1.0), alone).values())


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_before_n_star_comes_to_rest_t0_and_c_are_bounds(noise: float) -> None:
    gaps = made(1e7, lengths=LENGTHS[:9], noise=noise)
    fits = fit_laws(gaps, 1.0)
    rows = estimates(fits, gaps)
    longest = LENGTHS[8]
    assert rows["t0"]["bound"] == f"> {longest:.3g}" and math.isnan(rows["t0"]["value"])
    reached = float(str(rows["c"]["bound"]).removeprefix("> "))
    assert math.isnan(rows["c"]["value"]) and 0.7 * n_star(longest, 1e7) < reached < 1.1 * n_star(longest, 1e7) < C
    power = estimates(fits, gaps, "power")["beta"]
    assert power["value"] == pytest.approx(BETA, abs=0.1), "far from rest the law is a power of t"


def test_after_n_star_has_come_to_rest_its_onset_is_a_bound_and_c_is_known() -> None:
    gaps = made(1.0, noise=0.1)
    rows = estimates(fit_laws(gaps, 1.0), gaps)
    assert str(rows["t0"]["bound"]).startswith("<") and rows["beta"]["bound"] == "not determined"
    assert rows["c"]["value"] == pytest.approx(C, rel=0.1)


def test_where_n_star_grows_with_the_logarithm_that_law_is_recovered_and_foretells() -> None:
    gaps = made(by=logarithmic, curves=[(100, 16), (400, 16), (100, 64), (1600, 64)], replicates=1)
    fits = fit_laws(gaps, 1.0)
    found = fits["logarithmic"].fit
    expected = {"s": S, "c": C, "t0": T0, "gamma": 0.5, "delta": -0.25}
    assert found.values == pytest.approx(expected, rel=1e-3)
    assert found.residual < 1e-4 < min(fitted.fit.residual for law, fitted in fits.items() if law != "logarithmic") / 10
    at = pd.DataFrame({"images_seen": [10**9], "parameters": 900, "pixels": 16})
    assert found.log_n_star(at) == pytest.approx(math.log(logarithmic(1e9, T0, 900, 16)), rel=1e-4)


def test_before_n_star_bends_the_logarithmic_law_has_bounds_and_long_after_it_none() -> None:
    early = made(1e7, by=logarithmic, lengths=LENGTHS[5:], noise=0.02)
    rows = estimates(fit_laws(early, 1.0), early, "logarithmic")
    assert rows["t0"]["bound"] == f"> {LENGTHS[-1]:.3g}" and "beta" not in rows
    so_far = float(str(rows["c"]["bound"]).removeprefix("> "))
    assert so_far == pytest.approx(C / (1 + 1e7 / LENGTHS[-1]), rel=0.2) and so_far < C
    late = made(50.0, by=logarithmic, noise=0.02)
    rows = estimates(fit_laws(late, 1.0), late, "logarithmic")
    assert rows["t0"]["value"] == pytest.approx(50, rel=0.3) and rows["c"]["value"] == pytest.approx(C, rel=0.1)
    rest = made(1.0, noise=0.02)
    rows = estimates(fit_laws(rest, 1.0), rest, "logarithmic")
    assert str(rows["t0"]["bound"]).startswith("<") and rows["c"]["bound"] == "not determined"


def test_exponents_of_parameters_and_pixels_are_found_where_they_vary() -> None:
    both = made(curves=[(100, 16), (400, 16), (100, 64), (1600, 64)], replicates=1)
    found = fit_laws(both, 1.0)["saturating"].fit
    assert (found.gamma, found.delta) == (pytest.approx(0.5, abs=1e-3), pytest.approx(-0.25, abs=1e-3))
    width = fit_laws(made(curves=[(100, 16), (400, 16)], replicates=1), 1.0)["saturating"].fit
    assert width.gamma == pytest.approx(0.5, abs=1e-3) and width.delta is None
    together = fit_laws(made(curves=[(16, 16), (256, 256)], replicates=1), 1.0)["saturating"].fit
    assert together.delta == pytest.approx(0.25, abs=1e-3) and together.gamma is None, "P follows from d"
    one = fit_laws(made(), 1.0)
    assert one["saturating"].fit.gamma is None and "parameters" not in one


def test_replicates_are_drawn_within_each_curve() -> None:
    gaps = made(curves=[(100, 16), (400, 16)], noise=0.1, replicates=2)
    gaps.loc[gaps.index.get_level_values("curve") == "400 16", ("B", 0)] = np.nan
    fitted = fit_laws(gaps, 1.0)["saturating"]
    assert len(fitted.draws) == 300 and len(set(map(id, fitted.draws))) == 3, "of A and B of the first, and A"
    low, high = fitted.interval(lambda fit: fit.gamma or math.nan)
    assert low < fitted.fit.values["gamma"] < high


def test_what_was_left_out_is_foretold_by_the_right_law_alone() -> None:
    gaps = made(curves=[(100, 16), (400, 16), (100, 64), (1600, 64), (100, 256), (900, 256)], replicates=1)
    rows = {row["law"]: row for row in laws_table(fit_laws(gaps, 1.0), gaps, stars_of(gaps), 1.0)}
    assert list(rows) == ["saturating", "logarithmic", "power", "proportional", "parameters", "constant"]
    assert [row["parameters"] for row in rows.values()] == [6, 5, 5, 4, 2, 2]
    errors = ("residual", "longest_out", "longest_out_n_star", "resolution_out", "resolution_out_n_star")
    assert max(rows["saturating"][key] for key in errors) < 1e-2
    for law in ("logarithmic", "power", "proportional", "parameters", "constant"):
        assert min(rows[law][key] for key in errors) > 0.05, law


def test_a_law_needs_lengths_and_a_gap_that_falls_with_n() -> None:
    two = made(lengths=LENGTHS[5:7])
    assert "saturating" not in fit_laws(two, 1.0) and "power" in fit_laws(two, 1.0)
    assert list(fit_laws(made(lengths=LENGTHS[6:7]), 1.0)) == ["proportional", "constant"]
    cells = two.index.to_frame(index=False)
    assert fit("constant", cells, np.log(cells["n_train"].to_numpy())) is None
    assert fit_laws(two.iloc[:0], 1.0) == {}


def test_predictions_hold_the_n_star_to_come() -> None:
    seen = made(lengths=LENGTHS[:9], noise=0.05)
    fitted = fit_laws(seen, 1.0)["saturating"]
    at = pd.DataFrame({"images_seen": [LENGTHS[-1]], "parameters": 1, "pixels": 1})
    centre, low, high = fitted.predicted(at, np.array([0.05, -0.02, 0.03]))
    assert low < n_star(LENGTHS[-1]) < high and low < centre < high
    _, within_low, within_high = fitted.predicted(at, np.array([]))
    assert low < within_low < within_high < high, "what measured N* were off by widens the interval"
    alone = Fitted(fitted.fit, [])
    assert np.isnan(alone.predicted(at, np.array([]))[1:]).all()
    assert alone.predicted(at, np.array([0.1]))[1:] == (
        pytest.approx(centre * math.exp(-0.1), rel=0.01),
        pytest.approx(centre * math.exp(0.1), rel=0.01),
    )
