"""What trials will cost, and what is done of them: `gahb.plan`."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from gahb import hardware
from gahb.api import notebook
from gahb.api.place import Place, check_address
from gahb.planning.plan import check_data
from gahb.planning.sweeps import trials_of
from gahb.quantities import duration, scientific
from gahb.trial import Trial
from gahb.typed import command_line

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Plan:
    """The trials of a sweep before they are trained, each with its cost and what the record knows of it.

    Args:
        trials: in the order of the rows.
        rows: a row a trial, as `gahb-sweep plan --json` prints it: `flops` of the whole training, `hours` of a core or
            GPU (None where nothing alike was measured), `memory` in bytes, `state`, and `cost` if a price was given.
        lines: what they come to.
        states: of the trials, as they are shown: "scheduled" until a worker has begun, where `state` is "running".
    """

    trials: Sequence[Trial]
    rows: Sequence[dict[str, Any]]
    lines: Sequence[str]
    states: Sequence[str]

    @cached_property
    def df(self) -> "pd.DataFrame":
        """The rows as a table."""
        import pandas as pd

        return pd.DataFrame(list(self.rows))

    @property
    def shown(self) -> list[dict[str, Any]]:
        """The rows as they are shown, what tells most of each, with units."""
        reused, timed = (any(row[key] for row in self.rows) for key in ("images_reused", "hours"))
        return [
            {
                **{key: row[key] for key in ("name", "architecture", "parameters", "receptive_field", "images")},
                **({"images_reused": row["images_reused"]} if reused else {}),
                "flops": scientific(row["flops"]),
                **({"time": duration(row["hours"] and 3600 * row["hours"])} if timed else {}),
                **({"cost": row["cost"]} if "cost" in row else {}),
                "memory": f"{row['memory'] / 1e9:.2g} GB",
                **{key: row[key] for key in ("worker", "gpus", "level") if key in row},
                "state": state,
            }
            for row, state in zip(self.rows, self.states, strict=True)
        ]

    def __repr__(self) -> str:
        return "\n".join(self.lines)

    def _repr_html_(self) -> str:
        import pandas as pd

        return notebook.page(notebook.table(pd.DataFrame(self.shown)), notebook.lines(self.lines))


def plan(
    sweep: str | Sequence[Trial],
    settings: Mapping[str, Any] | None = None,
    *,
    small: bool = False,
    devices: int | None = None,
    address: str | None = None,
    cluster: str | None = None,
    price: str | None = None,
    record: str | None = None,
    storage: str | None = None,
    **keys: Any,
) -> Plan:
    """What the trials of a sweep will cost, where they fit, and what is done. Runs nothing.

    Args:
        sweep: a sweep's name (`gahb-sweep list`), the path of a file with its trials, or trials of your own.
        settings: key → a value or a list of values, in place of the sweep's.
        small: the sweep's small variant.
        devices: GPUs or cores to reckon with; this machine's if left out.
        address: of a Ray cluster, "auto" or "HOST:6379", on which the trials shall fit.
        cluster: a cluster file, on whose worker types they shall fit.
        price: of a device-hour, "2.5", or of one of each worker type, "gpu-24gb=1,gpu-96gb=4".
        record: the record's URI; `MLFLOW_TRACKING_URI` or ./mlflow.db if left out.
        storage: `GAHB_STORAGE` or ./gahb-storage if left out.
        keys: settings, as arguments.

    Returns:
        the plan, whose `df` has a row a trial.

    Raises:
        UserError: no such sweep, a setting that will not do, a data set that is not there or has too few images.

    Example:
        >>> gahb.plan("transition", resolution=40, n_train=[1, 10], subset="A").df[["name", "parameters", "images"]]
                  name  parameters      images
        0   40x40-N1-A     1825024  1000000000
        1  40x40-N10-A     1825024  1000000000
    """
    check_address(address)
    trials = trials_of(sweep, {**(settings or {}), **keys}, small=small)
    return plan_trials(
        trials, Place.at(record, storage), devices=devices, address=address, cluster=cluster, price=price
    )


def plan_trials(
    trials: Sequence[Trial],
    place: Place,
    *,
    devices: int | None = None,
    address: str | None = None,
    cluster: str | None = None,
    price: str | None = None,
    among: Sequence[Trial] = (),
) -> Plan:
    """The same of given trials; `among` are others of the sweep, from which their names tell them."""
    from gahb.execution import spots
    from gahb.planning import calibration, prices
    from gahb.planning.plan import plan as planned_of

    charged = None if price is None else prices.parse(price)
    fits, unfit = spots.find(trials, address, cluster)
    of_kind = calibration.by_kind(place.record)
    speeds = {trial: of_kind(fits[trial].worker.kind if trial in fits else "") for trial in trials}
    planned = planned_of(trials, place.storage, place.record, speeds.__getitem__, among)
    check_data([p.trial for p in planned if p.to_train], place.storage)
    rows = [{**p.row(), **(spots.columns(fits.get(p.trial)) if fits or unfit else {})} for p in planned]
    if charged is not None:
        rows = [{**row, "cost": cost} for row, cost in zip(rows, prices.costs(charged, rows), strict=True)]
    names = list(dict.fromkeys(speed.name for speed in speeds.values() if speed))
    lines = [*dict.fromkeys(unfit), *_sums(rows, [p.share_left for p in planned], names, devices), *_past(place)]
    return Plan(trials, rows, lines, [p.shown_state for p in planned])


def _sums(
    rows: Sequence[dict[str, Any]], shares: Sequence[float], names: Sequence[str], devices: int | None
) -> list[str]:
    """What the trials cost together on devices of these names, where such shares of them are left."""

    def left(key: str) -> list[float]:
        return [share * row[key] for share, row in zip(shares, rows, strict=True)]

    flops = (
        f"{len(rows)} trials, {scientific(sum(row['flops'] for row in rows))} FLOPs, of which "
        f"{scientific(sum(left('flops')))} are not done"
    )
    if not all(row["hours"] for row in rows):
        words = " for some of these trials" if names else ""
        measure = command_line("gahb-sweep", "calibrate")
        return [flops, f"nothing is known of a device's speed{words}; measure it with: {measure}"]
    rest = left("hours")
    here, found = hardware.here()
    at_once = devices or (found if names == [here] else 1)
    wall = max(sum(rest) / at_once, max(rest, default=0))
    sources = "/".join(sorted({row["hours_from"] for row in rows}))
    whole, undone, on_all = (duration(3600 * hours) for hours in (sum(row["hours"] for row in rows), sum(rest), wall))
    lines = [
        flops,
        f"{whole} of {' and '.join(names)} (from {sources}), {undone} not done yet: about {on_all} on {at_once}",
    ]
    if all(row.get("cost") is not None for row in rows):
        spent = sum(row["cost"] for row in rows)
        lines.append(f"cost: {spent:,.2f}, of which {sum(left('cost')):,.2f} are not spent yet")
    return lines


def _past(place: Place) -> list[str]:
    """How well earlier plans were kept."""
    from gahb.planning import calibration
    from gahb.tracking.run import Kind

    ratios = calibration.past_plans(place.record.newest(Kind.TRIAL, calibration.RECENT))
    if not ratios:
        return []
    typical = f"{statistics.median(ratios):.2f} times what was planned"
    return [f"past plans: {len(ratios)} trials took {typical} (median; {min(ratios):.2f} to {max(ratios):.2f})"]
