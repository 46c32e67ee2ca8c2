"""The search for N*, the training-set size at which a gap closes: launches, round after round, of the trials that tell
most about it (`gahb.planning.search`).

    read the record → compare pairs, if similarity is asked for → propose → launch → read the record …

What is known is read from the record alone. So a search that was interrupted goes on where it was, what others have
trained counts, and the same command typed again trains nothing.
"""

import contextlib
import math
import subprocess
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gahb.data.splits import SUBSETS
from gahb.denoising.levels import Gap
from gahb.errors import UserError
from gahb.execution import answers, spots
from gahb.execution.code import write_plugins
from gahb.execution.launch import DEFAULTS, LaunchOptions, launch
from gahb.grids import curve_names
from gahb.planning.plan import check_data
from gahb.planning.search import Curve, Point, Search, Unit, grid_sizes, of_excess, of_gap, points
from gahb.storage.base import Storage
from gahb.tracking.record import Record, tagged
from gahb.tracking.run import Kind, Run, Tag
from gahb.training import cost
from gahb.trial import Trial

if TYPE_CHECKING:
    import torch

MOST = 16
"""Pairs of trials that one call trains of a curve."""

PAIR, EXCESS = "pair", "excess_mean"
"""The analysis that compares two models, and its metric that says how alike they are beyond chance."""


@dataclass(frozen=True)
class Criterion:
    """What N* is: where the PSNR gap, in one of its two averages, falls below a threshold in dB; or, without a gap,
    where the similarity of A's and B's samples beyond chance rises above a threshold in (0, 1)."""

    threshold: float
    gap: Gap | None = Gap.SIGMA

    @property
    def subsets(self) -> tuple[str, ...]:
        """What is measured apart of two trials."""
        return SUBSETS if self.gap else ("A and B",)

    def height(self, value: float) -> float:
        """See `gahb.planning.search`."""
        return of_gap(value, self.threshold) if self.gap else of_excess(value, self.threshold)


@dataclass(frozen=True)
class Sought:
    """A curve of a sweep: a trial of it, of which N, subset and seed stand for any, and the range of its N."""

    trial: Trial
    curve: Curve

    def trials(self, unit: Unit) -> list[Trial]:
        """A and B of a unit."""
        return [replace(self.trial, n_train=unit.n_train, subset=subset, seed=unit.seed) for subset in SUBSETS]


def curves_of(trials: Sequence[Trial]) -> dict[str, Sought]:
    """Name → curve, those of the cheapest trials first.

    Raises:
        UserError: a curve with one N only.
    """
    groups: dict[Trial, list[Trial]] = {}
    for trial in sorted(trials, key=cost.training_flops):
        groups.setdefault(replace(trial, n_train=1, subset=SUBSETS[0], seed=0), []).append(trial)
    found = {}
    for name, (trial, group) in zip(curve_names(list(groups)), groups.items(), strict=True):
        sizes, seed = {each.n_train for each in group}, min(each.seed for each in group)
        if len(sizes) == 1:
            raise UserError(f"{name} has n_train={min(sizes)} only; give the least and the largest: n_train=10,10000")
        found[name] = Sought(trial, Curve(name, min(sizes), max(sizes), seed))
    return found


class State:
    """What a record knows of the curves of a sweep's trials.

    Args:
        trials: those of the sweep, whose N are the ends of a range.
        sweep: the name under which the search trains.
        criterion: what N* is.
        within: what high over low of its interval shall be at most.
        storage: where data sets are.
        record: where runs are.

    Raises:
        UserError: a number out of range, a curve with one N only, or a data set with too few images for the largest N.
    """

    def __init__(
        self,
        trials: Sequence[Trial],
        sweep: str,
        criterion: Criterion,
        within: float,
        storage: Storage,
        record: Record,
    ) -> None:
        if not (math.isfinite(within) and within > 1):
            raise UserError(f"--within {within:g}: must be above 1, such as 1.3: the interval's high over low")
        self.curves = curves_of(trials)
        check_data(trials, storage)
        self.sweep, self.criterion, self.within, self.record = sweep, criterion, within, record
        hashes = {
            dataset: dataset.hash(storage) for dataset in {sought.trial.dataset for sought in self.curves.values()}
        }
        self.hashes = {name: hashes[sought.trial.dataset] for name, sought in self.curves.items()}
        self.read()

    def read(self) -> None:
        """Read the record: `runs`, the trials of each curve by N and seed, and subset; `search`, what follows."""
        self.runs: dict[str, dict[tuple[int, int], dict[str, Run]]] = {name: {} for name in self.curves}
        conditions = [
            f"{tagged(Tag.KIND, Kind.TRIAL)} AND {tagged(Tag.DATA_HASH, data_hash)}"
            for data_hash in dict.fromkeys(self.hashes.values())
        ]
        for run in self.record.search(*conditions):
            n_train, seed, subset = (run.flat[key] for key in ("n_train", "seed", "subset"))
            for name, sought in self.curves.items():
                trial = replace(sought.trial, n_train=n_train, seed=seed, subset=subset)
                if run.signature == trial.signature(self.hashes[name]):
                    known = self.runs[name].setdefault((n_train, seed), {})
                    if subset not in known or known[subset].state != "finished":
                        known[subset] = run
        compared = self.record.runs(PAIR) if not self.criterion.gap else []
        self.excess = {run.links: run.metrics.get(EXCESS) for run in compared if run.state == "finished"}
        self.search = Search(
            [replace(sought.curve, points=self._points(name)) for name, sought in self.curves.items()],
            self.within,
            self.criterion.subsets,
        )

    def _points(self, name: str) -> list[Point]:
        return [
            point
            for (n_train, seed), runs in self.runs[name].items()
            if (values := self._values(runs))
            for point in points(n_train, seed, values, self.criterion.height)
        ]

    def _values(self, runs: Mapping[str, Run]) -> dict[str, float]:
        """What was measured of an N and seed, by what is measured apart."""
        finished = {subset: run for subset, run in runs.items() if run.state == "finished"}
        if gap := self.criterion.gap:
            found = {subset: run.metrics.get(gap.metric) for subset, run in finished.items()}
        else:
            pair = frozenset(run.run_id for run in finished.values())
            found = {self.criterion.subsets[0]: self.excess.get(pair)}
        return {key: value for key, value in found.items() if value is not None and math.isfinite(value)}

    def not_compared(self) -> list[tuple[Run, Run]]:
        """The finished pairs of which similarity is asked for and not known."""
        if self.criterion.gap:
            return []
        finished = [runs for units in self.runs.values() for runs in units.values() if _whole(runs.values())]
        pairs = [(runs["A"], runs["B"]) for runs in finished]
        return [(a, b) for a, b in pairs if frozenset((a.run_id, b.run_id)) not in self.excess]

    def next(self, room: int | None, ended: Collection[str] = ()) -> list[Unit]:
        """What this search has begun and not brought to its end; else what to begin next.

        Args:
            room: pairs that are trained at once; one of each curve if left out.
            ended: curves that get none.
        """
        begun = [
            Unit(name, n_train, seed, "to go on")
            for name, units in self.runs.items()
            for (n_train, seed), runs in units.items()
            if name not in ended
            and not _whole(runs.values())
            and any(self.sweep in run.sweeps for run in runs.values())
        ]
        return sorted(begun) or self.search.proposals(room, ended)

    def trials(self, units: Sequence[Unit]) -> list[Trial]:
        """A and B of each unit."""
        return [trial for unit in units for trial in self.curves[unit.curve].trials(unit)]

    @property
    def among(self) -> list[Trial]:
        """A trial of each curve, between which the names of new trials tell."""
        return [sought.trial for sought in self.curves.values()]

    def finished(self, name: str, own: bool) -> list[Run]:
        """The finished trials of a curve that the search has trained, or the others."""
        runs = [run for of_unit in self.runs[name].values() for run in of_unit.values()]
        return [run for run in runs if run.state == "finished" and (self.sweep in run.sweeps) == own]

    def largest(self) -> Trial:
        """A trial of the largest N of the costliest curve."""
        sought = list(self.curves.values())[-1]
        return replace(sought.trial, n_train=sought.curve.largest)

    def measured(self, unit: Unit) -> bool:
        """Whether it is known what a unit's models are like."""
        return bool(self._values(self.runs[unit.curve].get((unit.n_train, unit.seed), {})))

    def row(self, name: str, reason: str | None = None) -> dict[str, Any]:
        """The row of `search --json`."""
        sought, found = self.curves[name], self.search.estimates[name]
        spent, known = self.finished(name, own=True), self.finished(name, own=False)
        seen = {run.run_id: int(run.metrics.get("images_seen", run.flat["images"])) for run in [*spent, *known]}
        grid = grid_sizes(sought.curve.least, sought.curve.largest, self.within)
        of_each = sum(seen.values()) / len(seen) if seen else sought.trial.images
        return {
            "curve": name,
            "n_star": found.n_star,
            "low": found.low,
            "high": found.high,
            "bound": found.bound,
            "trials": len(seen),
            "images_spent": sum(seen[run.run_id] - run.images_reused for run in spent),
            "images_known": sum(seen[run.run_id] - run.images_reused for run in known),
            "grid_images": round(len(SUBSETS) * len(grid) * of_each),
            "reason": reason,
        }


def _whole(runs: Collection[Run]) -> bool:
    """Whether A and B are both finished."""
    return len(runs) == len(SUBSETS) and all(run.state == "finished" for run in runs)


def search(
    state: State,
    *,
    storage: Storage,
    launched: str | None = None,
    options: LaunchOptions = DEFAULTS,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[list[dict[str, Any]], bool]:
    """Train, round after round, until each curve's N* is known as closely as asked for, or lies outside its range.

    Args:
        state: what is sought, and known so far.
        storage: where all nodes find data and checkpoints.
        launched: the sweep, as `gahb-sweep list` names it.
        options: where and with what to train.
        say: takes a line of progress.

    Returns:
        A row a curve, in which `reason` is why its search ended early; and whether a trial failed.

    Raises:
        UserError: see `launch`; or a comparison of two models ended in an error.
        KeyboardInterrupt: the user interrupted.
    """
    rounds = _Rounds(state, storage, launched, options, say)
    with rounds.stack:
        rounds.run()
    return [state.row(name, rounds.ended.get(name)) for name in state.curves], rounds.failed


class _Rounds:
    """The rounds of a search; arguments as for `search`. `stack` holds the connection to the cluster."""

    def __init__(
        self,
        state: State,
        storage: Storage,
        launched: str | None,
        options: LaunchOptions,
        say: Callable[[str], None],
    ) -> None:
        self.state, self.storage, self.launched, self.options, self.say = state, storage, launched, options, say
        self.stack, self.count, self.trained = contextlib.ExitStack(), 0, dict.fromkeys(state.curves, 0)
        self.ended: dict[str, str] = {}
        self.failed = False

    def run(self) -> None:
        """All rounds."""
        if self.options.address:
            self.connect()
        room = spots.room(self.state.largest(), self.options.address, self.options.cpus, self.options.gpus)
        self.compare()
        while units := self.state.next(room, self.ended):
            self.connect()
            self.round(units)

    def connect(self) -> None:
        """Connect to the cluster until the search ends, if that is not done."""
        from gahb.execution import connection

        self.stack.enter_context(connection.connected(self.options.address))

    def round(self, units: Sequence[Unit]) -> None:
        """Train some units, and read what has come of it."""
        self.count += 1
        self.say(f"round {self.count}: {'; '.join(map(_told, units))}")
        rows = launch(
            self.state.trials(units),
            self.state.sweep,
            storage=self.storage,
            record=self.state.record,
            launched=self.launched,
            options=self.options,
            say=self.say,
            among=self.state.among,
        )
        self.state.read()
        self.compare()
        for unit in units:
            self.trained[unit.curve] += 1
            if not self.state.measured(unit):
                self.ended[unit.curve] = f"nothing is known of the models of N = {unit.n_train}"
            elif self.trained[unit.curve] >= MOST and self.state.search.open(unit.curve):
                self.ended[unit.curve] = f"{MOST} pairs did not narrow it as much; the same command goes on"
        for unit, row in zip((unit for unit in units for _ in SUBSETS), rows, strict=True):
            if row["state"] != "finished":
                self.ended[unit.curve] = ": ".join(filter(None, (f"{row['name']} is {row['state']}", row["reason"])))
                self.failed |= row["state"] == "failed"

    def compare(self) -> None:
        """Compare the pairs of which similarity is asked for and not known, as tasks on the cluster."""
        pairs = self.state.not_compared()
        if pairs:
            self.connect()
            compare(pairs, self.state.record, self.storage, self.say)
            self.state.read()


def _told(unit: Unit) -> str:
    """A unit in words."""
    return f"{unit.curve} at N = {unit.n_train}{f', seed {unit.seed}' if unit.seed else ''}, {unit.why}"


def compare(pairs: Sequence[tuple[Run, Run]], record: Record, storage: Storage, say: Callable[[str], None]) -> None:
    """`gahb-analyze pair` of each pair, as tasks on the connected cluster; the record has what it finds.

    Raises:
        UserError: it ended in an error.
    """
    from gahb.execution import own_node, ray_cluster

    work = [(a.run_id, b.run_id, record.uri, storage.uri) for a, b in pairs]
    with own_node.watched():
        for i, _ in ray_cluster.map_unordered(_analyze_pair, work, say=say):
            say(f"compared {pairs[i][0].name} and {pairs[i][1].name}")


def _analyze_pair(work: tuple[str, str, str, str], device: "torch.device") -> None:
    """The command in a process of its own, as what trains may not import what analyses."""
    run1, run2, record, storage = work
    with tempfile.TemporaryDirectory() as folder:
        words = ["pair", run1, run2, "--json", *write_plugins(Path(folder))]
        places = answers.places(record, storage)
        process = answers.start(*words, variables=places, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        _, said = process.communicate()
    if process.returncode:
        raise UserError(answers.reason(process, said))
