"""N* in words, as analyses and searches say it: "the gap falls below 1 dB at N* = 2.43 (A and B: 2.31 … 2.43)"."""

import math
from collections.abc import Collection


def three_digits(value: float) -> str:
    """A positive number to three significant digits, without exponents: 0.0243, 2.43, 18.0, 12,900."""
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if rounded >= 100 else f"{rounded:#.3g}"


def with_interval(n_star: float, low: float | None, high: float | None, of: str = "95 %") -> str:
    """N* and its interval, "15.8 (95 % 14.2 … 17.4)".

    Args:
        low, high: an end that is not known, None or NaN, lies outside the N that were trained.
        of: what the interval is; without it there is none.
    """
    ends = [
        three_digits(end) if end and math.isfinite(end) else otherwise
        for end, otherwise in ((low, "below the smallest N"), (high, "above the largest N"))
    ]
    return three_digits(n_star) + (f" ({of} {' … '.join(ends)})" if of else "")


def of_replicates(count: int, subsets: Collection[str]) -> str:
    """What an interval over replicates is, each the trials of one seed and one of the subsets; nothing of one."""
    if count < 2:
        return ""
    if count > 2:
        return f"95 % over {count} replicates:"
    return f"{' and '.join(sorted(subsets))}:" if len(subsets) == 2 else "two replicates:"


def crossing(what: str, threshold: str, n_star: str, bound: str | None, *, falls: bool = True) -> str:
    """Where a quantity that falls (or rises) with N crosses a threshold.

    Args:
        what: the quantity.
        threshold: with its unit.
        n_star: with its interval.
        bound: in its place, if it lies outside the N that were trained: "< 10", "> 1000".
    """
    before, after = ("above", "below") if falls else ("below", "above")
    if not bound:
        return f"{what} {'falls' if falls else 'rises'} {after} {threshold} at N* = {n_star}"
    side, n = bound.split()
    if side == "<":
        return f"{what} is {after} {threshold} already at the smallest N ({int(n):,})"
    return f"{what} is still {before} {threshold} at the largest N ({int(n):,})"
