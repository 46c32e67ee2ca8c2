"""The trials of a sweep that may be under way: those that are finished, and how far the others are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gahb.errors import UserError
from gahb.execution.analysis import AnalysisContext
from gahb.grids import differing, pair_key, pair_name
from gahb.planning.plan import shown_state, states_of
from gahb.tracking import lookup
from gahb.tracking.run import Run

NAMED = 6
"""Trials that a line names."""


@dataclass(frozen=True)
class Underway:
    """The finished trials of a sweep, the others, and of each of these a row: `name`, `state`, `images_seen` of its
    `images`."""

    finished: list[Run]
    others: list[Run]
    rows: list[dict[str, Any]]

    @property
    def lines(self) -> list[str]:
        """How many trials are not finished, and how far they are; nothing if all are."""
        count = len(self.finished) + len(self.others)
        return (
            [f"{len(self.others)} of {count} trials are not finished: {_listed(self.how_far)}"] if self.others else []
        )

    @property
    def how_far(self) -> list[str]:
        """The trials that are not finished: "16x16-N64-A running (57 %)"."""
        rows = zip(self.others, self.rows, strict=True)
        seen = ((run, row, 100 * row["images_seen"] // row["images"]) for run, row in rows)
        return [f"{run.name} {shown_state(run, row['state'])} ({percent} %)" for run, row, percent in seen]

    @property
    def missing_pairs(self) -> list[str]:
        """Which pairs of the sweep are not finished, as a line; nothing if all are."""
        runs = [*self.finished, *self.others]
        keys = differing(run.trial for run in runs)
        done = {run.run_id for run in self.finished}
        halves = dict[str, list[Run]]()
        for run in runs:
            halves.setdefault(pair_key(run.flat), []).append(run)
        pairs = [pair for pair in halves.values() if len(pair) == 2]
        missing = []
        for pair in pairs:
            there = [run.flat["subset"] for run in pair if run.run_id in done]
            if len(there) < 2:
                alone = f" (only {there[0]} is finished)" if there else ""
                missing.append(f"{pair_name(pair[0].trial, keys)}{alone}")
        return [f"{len(missing)} of {len(pairs)} pairs are missing: {_listed(missing)}"] if missing else []


def trials_of(context: AnalysisContext, sweep: str) -> Underway:
    """The trials of a sweep, the oldest first.

    Raises:
        UserError: no such sweep, or no trial of it has finished.
    """
    runs = lookup.sweep_trials(context.record, sweep)
    others = [run for run in runs if run.state != "finished"]
    states = states_of(others, context.storage)
    rows = [
        {
            "name": run.name,
            "state": states[run.run_id],
            "images_seen": run.images_seen,
            "images": run.flat["images"],
        }
        for run in others
    ]
    found = Underway([run for run in runs if run.state == "finished"], others, rows)
    if not found.finished:
        raise UserError(f"no trial of sweep {sweep!r} has finished yet: {_listed(found.how_far)}")
    return found


def _listed(names: Sequence[str]) -> str:
    """The first of the names, and how many more there are."""
    more = [f"and {len(names) - NAMED} more"] if len(names) > NAMED else []
    return ", ".join([*names[:NAMED], *more])
