"""From a list of trials to finished runs: skip what the record has as finished, resume what is not, start the rest.

There is no other way to resume: a dead worker, a lost node, a killed launch and a second `launch` all come back
through here, because the signature finds both the run and the checkpoint.

A trial's run is tagged with the launch that has it in hand, and left to it while that launch is alive (`claims`).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gahb.data import splits
from gahb.data.dataset import Dataset, prepare
from gahb.planning import calibration, gpu_sharing
from gahb.planning.calibration import Device
from gahb.storage import leases
from gahb.storage.base import Storage
from gahb.tracking.record import Record, Run
from gahb.training import cost
from gahb.trial import Trial, differing, readable_name

if TYPE_CHECKING:
    from gahb.execution.task import Task

IN_HAND = ("finished", "running")
"""States of the trials that a launch leaves alone."""

METRICS = ("train_psnr", "test_psnr", "psnr_gap")


@dataclass(frozen=True)
class Planned:
    """A trial of a sweep with what the record knows of it.

    `state` is new, interrupted (a launch will resume it), running (a living launch has it in hand), finished or failed
    (a launch will try it again). `seconds` of device time are what the training should take in all, `known_from` "runs"
    or "calibration"; None where nothing alike was measured.
    """

    trial: Trial
    name: str
    signature: str
    data_hash: str
    state: str
    run: Run | None
    seconds: float | None
    known_from: str | None

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
            "parameters": cost.parameters(trial.architecture),
            "receptive_field": trial.architecture.receptive_field(),
            "images": trial.images,
            "flops": cost.training_flops(trial),
            "hours": self.seconds and self.seconds / 3600,
            "hours_from": self.known_from,
            "memory": cost.memory(trial),
            "state": self.state,
        }


def plan(trials: Sequence[Trial], storage: Storage, record: Record, device: Device | None = None) -> list[Planned]:
    """Each trial with its name, signature, state and cost on a device. Reads data sets' files to hash them, prepares
    nothing.

    Raises:
        UserError: a data set that is not there.
    """
    varying = differing(trials)
    hashes = {dataset: dataset.hash(storage) for dataset in dict.fromkeys(trial.dataset for trial in trials)}
    known = record.by_signature()
    planned = []
    for trial in trials:
        signature = trial.signature(hashes[trial.dataset])
        run = known.get(signature)
        name = run.name if run else readable_name(trial, varying)
        state = state_of(run, storage) if run else "new"
        seconds, known_from = (device and device.seconds(trial)) or (None, None)
        planned.append(Planned(trial, name, signature, hashes[trial.dataset], state, run, seconds, known_from))
    return planned


def state_of(run: Run, storage: Storage) -> str:
    """The state of a trial's run, telling running from interrupted by its launch's sign of life."""
    if not run.unfinished:
        return run.state
    return "running" if leases.alive(storage, run.tags.get("gahb.launch", "")) else "interrupted"


def launch(
    trials: Sequence[Trial],
    sweep: str,
    *,
    storage: Storage,
    record: Record,
    address: str | None = None,
    cpus: float = 1,
    gpus: float | None = None,
    retries: int = 5,
    checkpoint_seconds: float = 60,
    say: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
    """Bring every trial to its end and return one row for each: that of `plan`, with `run_id`, `trained` (False where
    nothing was left to do), `metrics` and `reason` (of a failure).

    Args:
        trials: what to train.
        sweep: the experiment's name in the record.
        storage: where all nodes find data and checkpoints.
        record: where runs are kept.
        address: a Ray cluster; this machine alone if left out.
        cpus: CPUs a trial.
        gpus: GPUs a trial, fractions allowed; None leaves it to `packing`, if the cluster has any.
        retries: how often a trial starts again, after its worker died, without having got further.
        checkpoint_seconds: least time between a trial's checkpoints.
        say: takes a line of progress.

    Raises:
        UserError: data that do not do, a cluster out of reach, a trial too large for every node, no compiler on this
            machine for trials that compile. Nothing has started.
        KeyboardInterrupt: the user interrupted.
    """
    planned = plan(trials, storage, record)
    in_hand = {p.run.tags["gahb.launch"] for p in planned if p.run and p.state == "running"}
    if leases.wait_for_heartbeats(in_hand, storage, say):
        planned = plan(trials, storage, record)
    to_train = [p for p in planned if p.state not in IN_HAND]
    if not address and any(p.trial.compile for p in to_train):
        from gahb.training.compilation import check_compiler

        check_compiler()
    _prepare_data(to_train, storage, say)
    say(_counts(planned))
    trained: set[str] = set()
    if to_train:
        from gahb.execution import ray_cluster
        from gahb.execution.task import Task

        with ray_cluster.connected(address), leases.heartbeat(storage) as launch_id:
            gpu = ray_cluster.gpu() if gpus is None else None
            device = calibration.known(record, gpu.name if gpu else None)
            shares = {p.trial: gpu_sharing.share(p.trial, gpu, device, cpus) if gpu else gpus or 0 for p in planned}
            memory = {trial: gpu_sharing.host_memory(trial, on_gpu=shares[trial] > 0) for trial in shares}
            for p in to_train:
                ray_cluster.check_resources(cpus, shares[p.trial], memory[p.trial])
            mine = {p.signature for p in to_train if leases.acquire(storage, p.signature, launch_id)}
            planned = plan(trials, storage, record, device)
            tasks = {
                p.signature: Task(
                    flat=p.trial.flat(),
                    signature=p.signature,
                    data_hash=p.data_hash,
                    run_id=_claim(p, sweep, storage, record, launch_id),
                    storage=storage.uri,
                    record_uri=record.uri,
                    checkpoint_seconds=checkpoint_seconds,
                    retries=retries,
                    cpus=cpus,
                    gpus=shares[p.trial],
                    memory=memory[p.trial],
                )
                for p in planned
                if p.signature in mine and p.state not in IN_HAND
            }
            record = Record(record.uri, retry=True)
            failures = ray_cluster.run_trials(list(tasks.values()), on_result=_Progress(planned, tasks, say))
            for run_id, reason in failures.items():
                record.fail(run_id, reason)
            assigned = {task.run_id for task in tasks.values()}
            ours = {run.run_id: run for run in record.trials(sweep) if run.tags.get("gahb.launch") == launch_id}
            for run_id in ours.keys() - assigned:
                record.discard(run_id)  # made twice, because the server did not answer the first time
            unfinished = [run_id for run_id in ours.keys() & assigned if ours[run_id].unfinished]
            for run_id in unfinished:
                record.interrupt(run_id)
            if unfinished:  # Tune ends quietly when the user interrupts it
                raise KeyboardInterrupt
            trained = set(tasks)
    for p in planned:
        if p.run and sweep not in p.run.sweeps:
            record.tag(p.run.run_id, {f"gahb.sweep.{sweep}": "true"})
    runs = record.by_signature()
    return [_result_row(p, runs.get(p.signature), p.signature in trained, storage) for p in planned]


class _Progress:
    """Says one line when a trial has seen all its images."""

    def __init__(self, planned: Sequence[Planned], tasks: "Mapping[str, Task]", say: Callable[[str], None]):
        self.trials = {tasks[p.signature].run_id: p for p in planned if p.signature in tasks}
        self.say = say
        self.done: set[str] = set()

    def __call__(self, run_id: str, row: Mapping[str, Any]) -> None:
        p = self.trials[run_id]
        if row["images_seen"] >= p.trial.images and run_id not in self.done:
            self.done.add(run_id)
            self.say(f"[{len(self.done)}/{len(self.trials)}] {p.name}: PSNR gap {row['psnr_gap']:.2f} dB")


def _counts(planned: Sequence[Planned]) -> str:
    states = [p.state for p in planned]
    parts = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
    rest = sum(state not in IN_HAND for state in states)
    return f"{len(planned)} trials: {', '.join(parts)}; {f'training {rest}' if rest else 'nothing to train'}"


def _prepare_data(planned: Sequence[Planned], storage: Storage, say: Callable[[str], None]) -> None:
    largest: dict[Dataset, Trial] = {}
    for trial in sorted((p.trial for p in planned), key=splits.needed):
        largest[trial.dataset] = trial
    for dataset, trial in largest.items():
        if dataset.found is not None:
            splits.check_size(trial, dataset.found, dataset.name)
    for dataset, trial in largest.items():
        prepared = prepare(dataset, storage, splits.needed(trial), say)
        splits.check_size(trial, len(prepared.images), dataset.name)


def _claim(planned: Planned, sweep: str, storage: Storage, record: Record, launch_id: str) -> str:
    """The run of a trial, made if there is none, now in the hands of this launch."""
    fresh = dict.fromkeys(("gahb.starts", "gahb.stop", "gahb.reason"), "")
    tags = {f"gahb.sweep.{sweep}": "true", "gahb.launch": launch_id, **fresh}
    if planned.seconds:
        tags["gahb.planned_seconds"] = f"{planned.seconds:.4g}"
    trial = planned.trial
    flat = trial.flat()
    params = {**flat, "parameters": cost.parameters(trial.architecture)}
    dataset = (trial.dataset.name, planned.data_hash, str(flat["dataset"]))
    if planned.run:
        if not planned.run.params:  # the launch that made it was killed
            record.describe(planned.run.run_id, params, dataset)
        record.tag(planned.run.run_id, tags)
        record.reopen(planned.run.run_id)
        return planned.run.run_id
    return record.create(
        sweep,
        planned.name,
        f"{storage.url}/artifacts",
        params=params,
        tags={
            "gahb.kind": "trial",
            "gahb.signature": planned.signature,
            "gahb.data_hash": planned.data_hash,
            "gahb.subset": trial.subset,
            "gahb.trial": json.dumps(flat),
            **tags,
        },
        dataset=dataset,
    )


def _result_row(planned: Planned, run: Run | None, trained: bool, storage: Storage) -> dict[str, Any]:
    """The row of a trial at the end of a launch; another launch may have taken it in hand and not made its run yet."""
    return {
        **planned.row(),
        "state": state_of(run, storage) if run else "running",
        "run_id": run.run_id if run else None,
        "trained": trained,
        "metrics": metrics(run) if run else {},
        "reason": reason(run) if run else None,
    }


def metrics(run: Run) -> dict[str, float]:
    """The last PSNRs of a trial's run."""
    return {key: run.metrics[key] for key in METRICS if key in run.metrics}


def reason(run: Run) -> str | None:
    """Why a trial is not finished."""
    return None if run.state == "finished" else run.tags.get("gahb.reason") or None
