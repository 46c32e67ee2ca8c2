"""The plan of a sweep: each trial with what the record knows of it and what it will cost. Nothing is run."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gahb.data.dataset import Dataset, known_count
from gahb.grids import differing, readable_name
from gahb.planning.calibration import Device
from gahb.storage import leases
from gahb.storage.base import Storage
from gahb.tracking.record import Record
from gahb.tracking.run import Run, Tag
from gahb.training import cost
from gahb.training.checkpoint_names import folder_of, newest_step
from gahb.trial import Trial


@dataclass(frozen=True)
class Planned:
    """A trial of a sweep with what the record knows of it.

    Args:
        trial: the trial.
        name: of its run.
        signature: what names it.
        data_hash: the data set.
        state: new, interrupted (a launch will resume it), running (a living launch holds its lease), finished or failed
            (a launch will try it again).
        run: its run, if there is one.
        seconds: device time that the training should take in all; None where nothing alike was measured.
        known_from: "runs" or "calibration", where `seconds` are known from.
        course: the signatures of other trials of its course that it may go on from, the furthest first.
        images_reused: what the first of them has seen.
    """

    trial: Trial
    name: str
    signature: str
    data_hash: str
    state: str
    run: Run | None
    seconds: float | None
    known_from: str | None
    course: tuple[str, ...] = ()
    images_reused: int = 0

    @property
    def to_train(self) -> bool:
        """Whether a launch has something to do."""
        return self.state not in ("finished", "running")

    @property
    def share_left(self) -> float:
        """The share of its images that neither it nor another trial of its course has seen, as far as is known."""
        if self.state == "finished":
            return 0
        seen = max(self.images_reused, self.run.images_seen if self.run else 0)
        return max(0, 1 - seen / self.trial.images)

    @property
    def shown_state(self) -> str:
        """As `shown_state` says."""
        return shown_state(self.run, self.state)

    def row(self) -> dict[str, Any]:
        """The row of `plan --json`; flops are those of the whole training, hours of a core or GPU, memory in bytes."""
        trial = self.trial
        return {
            "name": self.name,
            "signature": self.signature,
            "dataset": trial.flat()["dataset"],
            "resolution": trial.dataset.resolution,
            "n_train": trial.n_train,
            "subset": trial.subset,
            "architecture": trial.architecture.name,
            "parameters": cost.parameters(trial.architecture, trial.dataset.resolution),
            "receptive_field": trial.architecture.receptive_field(),
            "images": trial.images,
            "images_reused": self.images_reused,
            "flops": cost.training_flops(trial),
            "hours": self.seconds and self.seconds / 3600,
            "hours_from": self.known_from,
            "memory": cost.memory(trial),
            "state": self.state,
        }


def plan(
    trials: Sequence[Trial],
    storage: Storage,
    record: Record,
    device: Callable[[Trial], Device | None] = lambda trial: None,
    among: Sequence[Trial] = (),
) -> list[Planned]:
    """Each trial with its name, which tells it from the others and from those of `among`, signature, state and cost on
    its device. Reads data sets' files to hash them, prepares nothing.

    Raises:
        UserError: a data set that is not there.
    """
    varying = differing([*trials, *among])
    hashes = {dataset: dataset.hash(storage) for dataset in dict.fromkeys(trial.dataset for trial in trials)}
    signatures = [trial.signature(hashes[trial.dataset]) for trial in trials]
    known = record.by_signature(signatures)
    states = states_of(known.values(), storage)
    planned = []
    for trial, signature in zip(trials, signatures, strict=True):
        run = known.get(signature)
        name = run.name if run else readable_name(trial, varying)
        state = states[run.run_id] if run else "new"
        seconds, known_from = ((speed := device(trial)) and speed.seconds(trial)) or (None, None)
        planned.append(Planned(trial, name, signature, hashes[trial.dataset], state, run, seconds, known_from))
    return _on_courses(planned, storage, record)


def _on_courses(planned: list[Planned], storage: Storage, record: Record) -> list[Planned]:
    """The same, with what trials that have not begun may go on from."""
    courses = {p.signature: c for p in planned if p.to_train and (c := p.trial.course(p.data_hash))}
    known = record.by_course(set(courses.values()))

    def seen(p: Planned) -> Planned:
        if p.run and p.state == "finished":
            return replace(p, images_reused=p.run.images_reused)
        same = known.get(courses.get(p.signature, ""), ())
        signatures = {run.signature for run in same} - {p.signature}
        if not signatures or newest_step(storage, folder_of(p.signature)):
            return p
        steps = {signature: newest_step(storage, folder_of(signature)) for signature in signatures}
        usable = sorted((s for s in steps if 0 < steps[s] < p.trial.steps), key=lambda s: -steps[s])
        return replace(p, course=tuple(usable), images_reused=steps[usable[0]] * p.trial.batch_size) if usable else p

    return [seen(p) for p in planned]


def check_data(trials: Iterable[Trial], storage: Storage) -> None:
    """Raise UserError if a data set is known to have too few images for its largest trial: files are counted, and
    of those that were prepared the ones that are no near-duplicates."""
    for dataset, trial in largest(trials).items():
        if (count := known_count(dataset, storage)) is not None:
            trial.split.check_size(count, dataset.name)


def largest(trials: Iterable[Trial]) -> dict[Dataset, Trial]:
    """Data set → its trial that needs the most images."""
    return {trial.dataset: trial for trial in sorted(trials, key=lambda trial: trial.split.needed)}


def status_rows(runs: Sequence[Run], states: Mapping[str, str]) -> list[dict[str, Any]]:
    """The rows of `status --json`.

    Args:
        runs: trials.
        states: as `states_of` makes them.
    """
    return [
        {
            "sweep": "/".join(run.sweeps),
            "name": run.name,
            "run_id": run.run_id,
            "state": states[run.run_id],
            "images_seen": run.images_seen,
            "images": run.flat["images"],
            "metrics": run.psnrs,
            "reason": run.reason,
        }
        for run in runs
    ]


def states_of(runs: Iterable[Run], storage: Storage) -> dict[str, str]:
    """Run id → the state of a trial's run, telling running from interrupted by its launch's heartbeat."""
    found = list(runs)
    launches = {run.tags.get(Tag.LAUNCH, "") for run in found if run.unfinished}
    states = {launch_id: "running" if leases.alive(storage, launch_id) else "interrupted" for launch_id in launches}
    return {run.run_id: states[run.tags.get(Tag.LAUNCH, "")] if run.unfinished else run.state for run in found}


def shown_state(run: Run | None, state: str) -> str:
    """A trial's state as people are shown it: while a launch is alive, "scheduled" until a worker has begun the trial,
    and "running" from then on. In data, such as what --json prints, both are "running"."""
    return "scheduled" if run and run.state == "scheduled" and state == "running" else state


def counted(states: Iterable[str]) -> str:
    """ "4 finished, 2 running"."""
    return ", ".join(f"{count} {state}" for state, count in Counter(states).items())
