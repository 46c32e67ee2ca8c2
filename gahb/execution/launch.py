"""From a list of trials to finished runs: skip what the record has as finished, resume what is not, start the rest.

There is no other way to resume: a dead worker, a lost node, a killed launch and a second `launch` all come back
through here, because the signature finds both the run and the checkpoint.

    plan → connect and place → prepare data → acquire leases → plan again → a run and a task for each → run → close

A trial's run is tagged with the launch that holds its lease, and left to it while that launch is alive (`leases`).
"""

import contextlib
import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gahb import registry
from gahb.data.dataset import prepare
from gahb.execution import live, own_node
from gahb.execution.task import Task
from gahb.grids import pair_key
from gahb.models.architectures import ARCHITECTURES
from gahb.planning import calibration
from gahb.planning.placement import Placement, place
from gahb.planning.plan import Planned, check_data, counted, largest, plan, states_of
from gahb.storage import leases
from gahb.storage.base import Storage
from gahb.tracking import notes, views
from gahb.tracking.record import Record
from gahb.tracking.record_writer import RecordWriter
from gahb.tracking.run import Kind, N, Run, Tag, member_of
from gahb.training import cost
from gahb.trial import Trial


@dataclass(frozen=True)
class LaunchOptions:
    """Where and with what trials are trained; no result depends on it.

    Args:
        address: a Ray cluster; this machine alone if left out.
        cpus: CPUs a trial.
        gpus: GPUs a trial, fractions allowed; None leaves it to `gpu_sharing`, if the cluster has any.
        retries: how often a trial starts again, after its worker died, without having got further.
        checkpoint_seconds: least time between a trial's checkpoints.
    """

    address: str | None = None
    cpus: float = 1
    gpus: float | None = None
    retries: int = 5
    checkpoint_seconds: float = 60


DEFAULTS = LaunchOptions()

STOP_SECONDS = 45.0
"""How long trials may take to stop at an interrupt; who has sent it may send another signal after a minute."""


def launch(
    trials: Sequence[Trial],
    sweep: str,
    *,
    storage: Storage,
    record: Record,
    launched: str | None = None,
    options: LaunchOptions = DEFAULTS,
    say: Callable[[str], None] = lambda line: None,
    among: Sequence[Trial] = (),
) -> list[dict[str, Any]]:
    """Bring every trial to its end and return one row for each: that of `plan`, with `run_id`, `trained` (False where
    nothing was left to do), `metrics` and `reason` (of a failure).

    Args:
        trials: what to train.
        sweep: the experiment's name in the record.
        storage: where all nodes find data and checkpoints.
        record: where runs are kept.
        launched: the sweep that is launched under that name, as `gahb-sweep list` names it, if it is one of those.
        options: where and with what to train.
        say: takes a line of progress.
        among: others that are launched under that name, from which the names of the new runs tell them.

    Raises:
        UserError: data that do not do, a cluster out of reach, a trial too large for every node that lives or may be
            started, no compiler on this machine for trials that compile, an experiment or a run whose artifacts are to
            go elsewhere than to the storage. Nothing has started.
        KeyboardInterrupt: the user interrupted.
    """
    return Launch(trials, sweep, storage, record, options, say, launched, among).run()


class Launch:
    """One launch; arguments as for `launch`."""

    def __init__(
        self,
        trials: Sequence[Trial],
        sweep: str,
        storage: Storage,
        record: Record,
        options: LaunchOptions,
        say: Callable[[str], None],
        launched: str | None = None,
        among: Sequence[Trial] = (),
    ) -> None:
        self.trials, self.sweep, self.storage, self.among = trials, sweep, storage, among
        self.membership = member_of(sweep, launched)
        self.options, self.say, self.interrupted = options, say, False
        self.record = RecordWriter(record.uri, storage.url)  # while nothing has started, a user waits seconds
        self.retrying = RecordWriter(record.uri, storage.url, retry=True)  # what has been trained is worth any wait

    def run(self) -> list[dict[str, Any]]:
        """The launch, from plan to rows."""
        planned, trained = self.plan(), set[str]()
        to_train = [p for p in planned if p.to_train]
        check_guests(to_train)
        self.check_locations(to_train)
        self.check_compiler(to_train)
        check_data([p.trial for p in to_train], self.storage)
        if to_train:
            planned, trained = self.train(planned, to_train)
        else:
            self.say(_counts(planned))
            self.set_up_views()
        return self.rows(planned, trained)

    def plan(self) -> list[Planned]:
        """The plan, once it is known which launches on other machines are alive."""
        planned = plan(self.trials, self.storage, self.record, among=self.among)
        launches = {p.run.tags.get(Tag.LAUNCH, "") for p in planned if p.run and p.state == "running"}
        if leases.wait_for_heartbeats(launches, self.storage, self.say):
            return plan(self.trials, self.storage, self.record, among=self.among)
        return planned

    def check_locations(self, to_train: Sequence[Planned]) -> None:
        """Raise UserError if the artifacts of a trial would go where none should be."""
        if not all(p.run for p in to_train):
            self.record.check_experiment(self.sweep)
        for p in to_train:
            if p.run:
                self.record.check_location(p.run)

    def check_compiler(self, to_train: Sequence[Planned]) -> None:
        """Raise UserError if this machine shall compile and cannot."""
        if not self.options.address and any(p.trial.compile for p in to_train):
            from gahb.training.compilation import check_compiler

            check_compiler()

    def train(self, planned: list[Planned], to_train: Sequence[Planned]) -> tuple[list[Planned], set[str]]:
        """Train those trials whose lease is to be had: the plan by which it was done, with the device's times, and the
        trained trials' signatures."""
        from gahb.execution import connection, ray_cluster

        with contextlib.ExitStack() as stack:
            stack.enter_context(connection.connected(self.options.address))
            placements, device = self.placements(to_train)
            launch_id = stack.enter_context(leases.heartbeat(self.storage))  # while one lives, no data are removed
            prepare_data([p.trial for p in to_train], self.storage, self.say)
            self.say(_counts(planned))
            stack.enter_context(own_node.watched(lambda: leases.end(self.storage, launch_id)))
            acquired = {p.signature for p in to_train if leases.acquire(self.storage, p.signature, launch_id)}
            planned = plan(
                self.trials, self.storage, self.record, device, self.among
            )  # a launch may have ended since the last one
            ours = [p for p in planned if p.signature in acquired and p.to_train]
            say_reused(ours, self.say)
            tasks = {p.signature: self.task(p, launch_id, placements[p.trial]) for p in largest_first(ours)}
            run_ids = [task.run_id for task in tasks.values()]
            self.set_up_views()
            with live.shown(self.board(planned, tasks), self.say):
                failures = ray_cluster.run_trials(
                    list(tasks.values()),
                    on_result=_Progress(planned, tasks, self.say),
                    on_interrupt=lambda: self.stop(run_ids),
                    say=self.say,
                )
            self.close(run_ids, failures, launch_id)
        return planned, set(tasks)

    def board(self, planned: Sequence[Planned], tasks: Mapping[str, Task]) -> live.Board:
        """All trials, those that others train or have trained among them, in the order of the plan."""
        known = {p.signature: p.run.run_id for p in planned if p.run}
        run_ids = list({**known, **{signature: task.run_id for signature, task in tasks.items()}}.values())
        record = Record(self.record.uri, self.storage.url)  # of the board's own thread
        return live.Board(self.sweep, lambda: record.by_id(run_ids), self.storage)

    def placements(
        self, to_train: Sequence[Planned]
    ) -> tuple[dict[Trial, Placement], Callable[[Trial], calibration.Device | None]]:
        """Where each trial runs on the connected cluster, and what is known of the speed of the device there. Raises
        UserError if a trial fits nowhere."""
        from gahb.execution import ray_cluster

        workers = ray_cluster.workers()
        memory = ray_cluster.gpu_memory()
        device = calibration.by_kind(self.record)
        found = {
            p.trial: place(
                p.trial, workers, cpus=self.options.cpus, gpus=self.options.gpus, gpu_memory=memory, device=device
            )
            for p in to_train
        }
        kinds = {trial: placement.worker.kind if placement.gpus else "" for trial, placement in found.items()}
        return found, lambda trial: device(kinds[trial]) if trial in kinds else None

    def task(self, planned: Planned, launch_id: str, placement: Placement) -> Task:
        """A trial's task, with its run in the record."""
        return Task(
            flat=planned.trial.flat(),
            signature=planned.signature,
            data_hash=planned.data_hash,
            run_id=self.scheduled_run(planned, launch_id),
            storage=self.storage.uri,
            record_uri=self.record.uri,
            checkpoint_seconds=self.options.checkpoint_seconds,
            retries=self.options.retries,
            cpus=self.options.cpus,
            gpus=placement.gpus,
            kind=placement.kind,
            memory=placement.memory,
            plugins=[asdict(origin) for origin in registry.files()],
            course=planned.course,
        )

    def scheduled_run(self, planned: Planned, launch_id: str) -> str:
        """The id of a trial's run, made if there is none, scheduled by this launch."""
        tags: dict[str, str] = {
            **self.membership,
            Tag.LAUNCH: launch_id,
            **dict.fromkeys((Tag.STARTS, Tag.STOP, Tag.REASON, Tag.PROGRESS), ""),
        }
        if planned.seconds:
            tags[Tag.PLANNED_SECONDS] = f"{planned.seconds:.4g}"
        trial = planned.trial
        flat = trial.flat()
        params = {**flat, "parameters": cost.parameters(trial.architecture, trial.dataset.resolution)}
        dataset = (trial.dataset.name, planned.data_hash, str(flat["dataset"]))
        metrics = {N: trial.n_train}
        if planned.run:
            run_id = planned.run.run_id
            if not planned.run.params:  # the launch that made it was killed
                self.record.describe(run_id, params, dataset, metrics)
            self.record.tag(run_id, tags)
            self.record.schedule(run_id)
            return run_id
        names: dict[str, str] = {
            Tag.KIND: Kind.TRIAL,
            Tag.SIGNATURE: planned.signature,
            Tag.DATA_HASH: planned.data_hash,
            Tag.SUBSET: trial.subset,
            Tag.TRIAL: json.dumps(flat),
            **notes.of_new_trial(flat),
        }
        if course := trial.course(planned.data_hash):
            names[Tag.COURSE] = course
        if trial.plugins:
            names[Tag.PLUGINS] = json.dumps(trial.plugins)
        return self.record.create(
            self.sweep, planned.name, params=params, tags={**names, **tags}, dataset=dataset, metrics=metrics
        )

    def set_up_views(self) -> None:
        """Let the MLflow UI show the sweep on the columns and charts that it is looked at for."""
        last = max(trial.steps * trial.batch_size for trial in self.trials)
        views.set_up_trials(self.record.client, self.sweep, last)

    def stop(self, run_ids: Collection[str]) -> None:
        """Let the trials that run write a checkpoint and end, and wait for them, no longer than STOP_SECONDS."""
        self.interrupted = True
        self.say("interrupted: trials write a checkpoint and end, within seconds; again ends them now")
        began = time.monotonic()
        with contextlib.suppress(Exception):  # of MLflow; then they end without a checkpoint
            unfinished = [run for run in self.record.by_id(run_ids) if run.unfinished]
            running = [run.run_id for run in unfinished if run.state == "running"]
            for run in unfinished:
                self.record.tag(run.run_id, {Tag.STOP: "true"})
            while time.monotonic() - began < STOP_SECONDS and running:
                time.sleep(1)
                running = [run.run_id for run in self.record.by_id(running) if run.state == "running"]

    def close(self, run_ids: Collection[str], failures: Mapping[str, str], launch_id: str) -> None:
        """Mark the runs that could not begin as failed, and those that have not come to an end as interrupted.

        Raises:
            KeyboardInterrupt: there were some of the latter, or the user has interrupted.
        """
        for run_id, reason in failures.items():
            self.retrying.fail(run_id, reason)
        ours = self.retrying.by_id(run_ids)
        unfinished = [run for run in ours if run.unfinished and run.tags.get(Tag.LAUNCH) == launch_id]
        for run in unfinished:
            self.retrying.interrupt(run.run_id)
        if unfinished or (self.interrupted and any(run.state != "finished" for run in ours)):
            raise KeyboardInterrupt

    def rows(self, planned: Sequence[Planned], trained: Collection[str]) -> list[dict[str, Any]]:
        """What became of every trial, each now a member of the sweep."""
        record = self.retrying if trained else self.record
        for p in planned:
            if p.run and not self.membership.items() <= p.run.tags.items():
                record.tag(p.run.run_id, self.membership)
        runs = record.by_signature([p.signature for p in planned])
        states = states_of(runs.values(), self.storage)
        return [_row(p, runs.get(p.signature), states, p.signature in trained) for p in planned]


def largest_first(planned: Sequence[Planned]) -> list[Planned]:
    """The trials in the order in which they begin: the longest first, so that none is left over at the end, but those
    of a pair next to each other, so that it can be compared early."""
    known = all(p.seconds for p in planned)
    pairs = dict[str, list[Planned]]()
    for p in planned:
        pairs.setdefault(pair_key(p.trial.flat()), []).append(p)

    def length(p: Planned) -> float:
        return (p.seconds or 0) if known else cost.training_flops(p.trial)

    ordered = sorted(pairs.values(), key=lambda pair: max(map(length, pair)), reverse=True)
    return [p for pair in ordered for p in pair]


def say_reused(planned: Sequence[Planned], say: Callable[[str], None]) -> None:
    """Say how many images trials need not see again that go on from others of their course."""
    going_on = [p for p in planned if p.images_reused]
    if going_on:
        reused, images = sum(p.images_reused for p in going_on), sum(p.trial.images for p in going_on)
        say(f"{len(going_on)} go on from shorter trials: {reused:,} of {images:,} images are reused")


def prepare_data(trials: Sequence[Trial], storage: Storage, say: Callable[[str], None]) -> None:
    """Prepare as many images of each data set as its largest trial needs. Raises UserError if there are not as many."""
    for dataset, trial in largest(trials).items():
        prepared = prepare(dataset, storage, trial.split.needed, say)
        trial.split.check(prepared, dataset.name)


def check_guests(to_train: Sequence[Planned]) -> None:
    """Raise UserError if a guest's network is none that can be trained."""
    networks = {(p.trial.architecture, p.trial.dataset.resolution) for p in to_train}
    for architecture, resolution in networks:
        if ARCHITECTURES.guest(architecture.name):
            from gahb.models.contract import check_network  # imports torch

            check_network(architecture, resolution)


class _Progress:
    """Says one line when a trial's training has ended."""

    def __init__(self, planned: Sequence[Planned], tasks: Mapping[str, Task], say: Callable[[str], None]) -> None:
        self.trials = {tasks[p.signature].run_id: p for p in planned if p.signature in tasks}
        self.say = say
        self.done: set[str] = set()

    def __call__(self, run_id: str, row: Mapping[str, Any]) -> None:
        p = self.trials[run_id]
        if row["ended"] and run_id not in self.done:
            self.done.add(run_id)
            self.say(f"[{len(self.done)}/{len(self.trials)}] {p.name}: PSNR gap {row['psnr_gap']:.2f} dB")


def _counts(planned: Sequence[Planned]) -> str:
    rest = sum(p.to_train for p in planned)
    states = counted(p.shown_state for p in planned)
    return f"{len(planned)} trials: {states}; {f'training {rest}' if rest else 'nothing to train'}"


def _row(planned: Planned, run: Run | None, states: Mapping[str, str], trained: bool) -> dict[str, Any]:
    """The row of a trial; another launch may have acquired its lease and not made its run yet."""
    return {
        **planned.row(),
        "state": states[run.run_id] if run else "running",
        "run_id": run.run_id if run else None,
        "trained": trained,
        "metrics": run.psnrs if run else {},
        "images_reused": run.images_reused if run else 0,
        "reason": run.reason if run else None,
    }
