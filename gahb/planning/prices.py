"""What trials cost: a price for an hour of a device, a GPU or a core, in whatever currency."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gahb.errors import UserError, did_you_mean

ANY = ""
"""The worker type that stands for every one."""


def parse(text: str) -> dict[str, float]:
    """Worker type → price: `2.5` is that of ANY, `gpu-24gb=1,gpu-96gb=4` those of two.

    Raises:
        UserError: a price that is no number from 0 on, or two of one type.
    """
    prices: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.rpartition("=")
        if name in prices or ANY in prices:
            raise UserError(f"--price {text}: give one number, or one for each worker type: TYPE=NUMBER,TYPE=NUMBER")
        try:
            prices[name] = float(number)
        except ValueError:
            prices[name] = math.nan
        if not (math.isfinite(prices[name]) and prices[name] >= 0):
            raise UserError(f"--price {text}: {number!r} is no price of an hour")
    return prices


def costs(prices: Mapping[str, float], rows: Sequence[Mapping[str, Any]]) -> list[float | None]:
    """What each trial of a plan costs, from its `hours` and, where types have prices, its `worker`; None where one of
    them is not known.

    Raises:
        UserError: there is no price of a worker type, or none of every type and no type is known.
    """
    if ANY in prices:
        return [row["hours"] and row["hours"] * prices[ANY] for row in rows]
    if not any("worker" in row for row in rows):
        raise UserError("--price names worker types, and none is known here: name the cluster's file with --cluster")
    for name in {row["worker"] for row in rows} - {None, *prices}:
        raise UserError(f"--price has none for the worker type {name!r}; {did_you_mean(name, prices)}")
    return [row["worker"] and row["hours"] and row["hours"] * prices[row["worker"]] for row in rows]
