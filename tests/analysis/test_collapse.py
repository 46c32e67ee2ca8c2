"""The exponent of a collapse is recovered from gaps that have one."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import pytest
from gahb_analysis.collapse import Collapse, collapse
from gahb_analysis.gaps import gaps_of, within

LENGTHS = tuple(512 * 2**k for k in range(12))


def found_in(gap: Callable[[int, int], float], lengths: Sequence[int] = LENGTHS) -> Collapse | None:
    """The collapse of gaps of N and images, each times a random factor."""
    rng = np.random.default_rng(1)
    rows = [
        {
            "curve": "x", "parameters": 1, "pixels": 1, "n_train": n, "images_seen": t, "subset": subset, "seed": 0,
            "psnr_gap": gap(n, t) * math.exp(0.02 * rng.standard_normal()),
        }
        for n in (1, 4, 16, 64) for t in lengths for subset in "AB"
    ]  # fmt: skip
    return collapse(within(gaps_of(pd.DataFrame(rows), "psnr_gap"), (0.1, 6.0)))


@pytest.mark.parametrize("q", [0.5, 1.0, 1.3])
def test_the_exponent_of_the_collapse_is_recovered(q: float) -> None:
    found = found_in(lambda n, t: 8 * (1 - math.exp(-t / (1000 * n**q))))
    assert found is not None and found.bound is None
    assert found.q == pytest.approx(q, abs=0.03) and found.low <= found.q <= found.high
    if q == 1:
        assert found.spread_at_one == pytest.approx(found.spread, rel=0.05)
    else:
        assert found.spread < found.spread_at_one / 3


def test_a_collapse_at_the_end_of_the_search_is_a_bound_and_few_cells_have_none() -> None:
    found = found_in(lambda n, t: 5 / n**0.6)  # which depends on N alone
    assert found is not None and str(found.bound).startswith("> ") and math.isnan(found.q)
    assert found_in(lambda n, t: 5 / n**0.6, LENGTHS[:1]) is None
