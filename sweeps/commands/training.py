"""What trains: `launch`, `search`, `retry`; and `stop`, which ends it."""

from contextlib import nullcontext
from typing import Annotated, Any

import typer

from gahb.cli import Address, Json, NoWait, RecordUri, Storage, print_json, print_table, say

from . import TRAIN, app
from .options import (
    Average,
    CheckpointSeconds,
    CpusPerTrial,
    GpusPerTrial,
    Options,
    Overrides,
    Report,
    Retries,
    SearchName,
    Similarity,
    Small,
    Sought,
    SweepName,
    SweepOrRun,
    Within,
    criterion_of,
    experiment_name,
    search_name,
    trials_of,
)
from .rows import print_found, short


@app.command(
    panel=TRAIN,
    examples=(
        "gahb-sweep launch demo",
        "gahb-sweep launch transition dataset=/data/faces.zip resolution=20 n_train=1,10,100 --as faces --report",
        "gahb-sweep launch ./my_sweep.py --small",
        "gahb-sweep launch demo --address http://head:8265 --record http://head:5000 --storage s3://bucket/gahb",
    ),
)
def launch(
    name: SweepName,
    overrides: Overrides = None,
    small: Small = False,
    address: Address = None,
    experiment: Annotated[
        str | None,
        typer.Option("--as", help="Name of the sweep in the record [NAME, or NAME-small].", show_default=False),
    ] = None,
    cpus_per_trial: CpusPerTrial = 1,
    gpus_per_trial: GpusPerTrial = None,
    retries: Retries = 5,
    checkpoint_seconds: CheckpointSeconds = 60,
    report: Report = False,
    no_wait: NoWait = False,
    json: Json = False,
    record: RecordUri = None,
    storage: Storage = None,
) -> None:
    """Train a sweep: skip the finished trials, resume the interrupted, start the new."""
    from ..catalog import find

    name = find(name)
    sweep = experiment_name((f"{name}-small" if small else name) if experiment is None else experiment)
    options = Options(address, cpus_per_trial, gpus_per_trial, retries, checkpoint_seconds)
    _train(trials_of(name, overrides, small), sweep, options, no_wait, json, record, storage, report, launched=name)


@app.command(
    panel=TRAIN,
    examples=(
        "gahb-sweep search demo n_train=4,1024 --gap 1.0",
        "gahb-sweep search demo n_train=4,1024 --similarity 0.5 --within 1.5 --as alike",
    ),
)
def search(
    name: SweepName,
    overrides: Overrides = None,
    gap: Sought = None,
    average: Average = None,
    similarity: Similarity = None,
    within: Within = 1.3,
    small: Small = False,
    address: Address = None,
    experiment: SearchName = None,
    cpus_per_trial: CpusPerTrial = 1,
    gpus_per_trial: GpusPerTrial = None,
    retries: Retries = 5,
    checkpoint_seconds: CheckpointSeconds = 60,
    no_wait: NoWait = False,
    json: Json = False,
    record: RecordUri = None,
    storage: Storage = None,
) -> None:
    """Find N* of each curve, where a gap closes, with trials placed where they tell most; n_train is the range."""
    criterion = criterion_of(gap, average, similarity)
    trials, sweep = trials_of(name, overrides, small), search_name(experiment, name, small)
    options = Options(address, cpus_per_trial, gpus_per_trial, retries, checkpoint_seconds)
    root, book, chosen = _begin(trials, sweep, options, no_wait, record, storage)
    from gahb.execution import search as searching

    from ..catalog import find

    state = searching.State(trials, sweep, criterion, within, root, book)
    rows, failed = searching.search(state, storage=root, launched=find(name), options=chosen, say=say)
    if json:
        print_json({"curves": rows})
    else:
        print_found(rows)
    for row in rows:
        if row["reason"]:
            say(f"{row['curve']}: {row['reason']}")
    if failed:
        raise typer.Exit(1)


@app.command(
    panel=TRAIN,
    examples=(
        "gahb-sweep retry demo",
        "gahb-sweep retry 16x16-N64-A",
    ),
)
def retry(
    sweep: SweepOrRun,
    address: Address = None,
    cpus_per_trial: CpusPerTrial = 1,
    gpus_per_trial: GpusPerTrial = None,
    retries: Retries = 5,
    checkpoint_seconds: CheckpointSeconds = 60,
    report: Report = False,
    no_wait: NoWait = False,
    json: Json = False,
    record: RecordUri = None,
    storage: Storage = None,
) -> None:
    """Train what has failed or was interrupted of a sweep, or one trial, with the settings that the record has."""
    from gahb.errors import UserError
    from gahb.storage.base import record_uri, storage_here
    from gahb.tracking import lookup
    from gahb.tracking.record import Record
    from gahb.tracking.run import Tag

    root = storage_here(storage)
    runs = lookup.sweep_or_trial(Record(record_uri(record), root.url), sweep)
    name = sweep if sweep in runs[0].sweeps else runs[0].sweeps[0]
    for old in runs:
        if old.trial.dataset.hash(root) != old.tags.get(Tag.DATA_HASH):
            raise UserError(
                f"{old.name}: its images are not those of {old.trial.dataset.name} any more, which another version of "
                f"gahb drew or another file held; launch the sweep anew"
            )
    options = Options(address, cpus_per_trial, gpus_per_trial, retries, checkpoint_seconds)
    _train([run.trial for run in runs], name, options, no_wait, json, record, storage, report)


@app.command(
    panel=TRAIN,
    examples=(
        "gahb-sweep stop demo",
        "gahb-sweep stop 16x16-N64-A",
    ),
)
def stop(sweep: SweepOrRun, json: Json = False, record: RecordUri = None, storage: Storage = None) -> None:
    """Let a trial, or all of a sweep, write a checkpoint and end; `launch` or `retry` goes on from there."""
    from gahb.planning.plan import states_of
    from gahb.storage.base import record_uri, storage_here
    from gahb.tracking import lookup
    from gahb.tracking.record_writer import RecordWriter
    from gahb.tracking.run import Tag

    root = storage_here(storage)
    book = RecordWriter(record_uri(record), root.url)
    states = states_of(lookup.sweep_or_trial(book, sweep), root)
    running = [run_id for run_id, state in states.items() if state == "running"]
    for run_id in running:
        book.tag(run_id, {Tag.STOP: "true"})
    if json:
        return print_json({"stopped": running})
    say(
        f"{len(running)} running trials will stop within seconds" if running else "nothing to stop: no trial is running"
    )


def _train(
    trials: list[Any],
    sweep: str,
    options: Options,
    no_wait: bool,
    json: bool,
    record: str | None,
    storage: str | None,
    report: bool,
    launched: str | None = None,
) -> None:
    """Train here, on a cluster that this machine belongs to, or as a job on one that it does not."""
    place, book, chosen = _begin(trials, sweep, options, no_wait, record, storage)
    from gahb.execution import answers
    from gahb.execution.launch import launch as launch_trials

    with answers.as_they_come(sweep, book, place, options.address, say) if report else nullcontext():
        rows = launch_trials(trials, sweep, storage=place, record=book, launched=launched, options=chosen, say=say)
    _end(rows, json)


def _begin(
    trials: list[Any], sweep: str, options: Options, no_wait: bool, record: str | None, storage: str | None
) -> tuple[Any, Any, Any]:
    """Storage, record and `LaunchOptions` of a command that trains; if it is to be a job, that ends this process."""
    from gahb.execution import ray_jobs

    if ray_jobs.is_server(options.address):
        _check_paths(trials)
    ray_jobs.hand_over(
        "gahb-sweep", options.address, record, storage, wait=not no_wait, stop=f"gahb-sweep stop {sweep}"
    )
    from gahb.execution.launch import LaunchOptions
    from gahb.storage.base import record_uri, storage_here
    from gahb.tracking.record import Record

    root = storage_here(storage)
    return root, Record(record_uri(record), root.url), LaunchOptions(**options._asdict())


def _check_paths(trials: list[Any]) -> None:
    """Raise UserError if a trial's images have a path that a job on a cluster cannot read."""
    from gahb.data.image_ray import BASES
    from gahb.data.sources import DATASETS
    from gahb.execution.ray_jobs import check_path

    for key, names in (("dataset", DATASETS), ("base", BASES)):
        for value in {trial.flat()[key] for trial in trials if key in trial.flat()}.difference(names):
            check_path(key, value)


def _end(rows: list[dict[str, Any]], json: bool) -> None:
    """Print what a launch has come to; exit status 1 if a trial failed."""
    if json:
        print_json({"trials": rows})
    else:
        print_table([short(row) for row in rows])
    for row in rows:
        if row["reason"]:
            say(f"{row['name']} {row['state']}: {row['reason']}")
    if any(row["state"] == "failed" for row in rows):
        raise typer.Exit(1)
