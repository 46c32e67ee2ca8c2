"""What trains: `launch`, `search`, `retry`; and `stop`, which ends it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from gahb.cli import Address, Json, NoWait, RecordUri, Storage, print_json, print_table, say, say_ui
from gahb.typed import command_line

from . import TRAIN, app
from .options import (
    Average,
    CheckpointSeconds,
    CpusPerTrial,
    GpusPerTrial,
    Notify,
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
    settings_of,
)
from .rows import print_found, short

if TYPE_CHECKING:
    from gahb.api.place import Place
    from gahb.api.sweeps import Sweep
    from gahb.execution.launch import LaunchOptions
    from gahb.planning.sweeps import Chosen
    from gahb.trial import Trial


@app.command(
    panel=TRAIN,
    examples=(
        "gahb-sweep launch demo",
        "gahb-sweep launch transition dataset=/data/faces.zip resolution=20 n_train=1,10,100 --as faces --report",
        "gahb-sweep launch ./my_sweep.py --small",
        "gahb-sweep launch faces.toml --notify 'mail -s faces me@example.org'",
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
    notify: Notify = None,
    no_wait: NoWait = False,
    json: Json = False,
    record: RecordUri = None,
    storage: Storage = None,
) -> None:
    """Train a sweep: skip the finished trials, resume the interrupted, start the new."""
    from gahb.planning.sweeps import choose

    chosen = choose(name, settings_of(name, overrides), small=small, name=experiment)
    options = Options(address, cpus_per_trial, gpus_per_trial, retries, checkpoint_seconds)
    _train(chosen, options, no_wait, json, record, storage, report, notify)


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
    notify: Notify = None,
    no_wait: NoWait = False,
    json: Json = False,
    record: RecordUri = None,
    storage: Storage = None,
) -> None:
    """Find N* of each curve, where a gap closes, with trials placed where they tell most; n_train is the range."""
    from gahb.planning.sweeps import choose

    criterion = criterion_of(gap, average, similarity)
    chosen = choose(name, settings_of(name, overrides), small=small, name=experiment, ending="-search")
    options = Options(address, cpus_per_trial, gpus_per_trial, retries, checkpoint_seconds)
    place, how = _begin(chosen, options, no_wait, record, storage)
    from gahb.execution import search as searching
    from gahb.execution.notify import told

    state = searching.State(chosen.trials, chosen.name, criterion, within, place.storage, place.record)
    with told(notify, chosen.name, *place, say):
        rows, failed = searching.search(state, storage=place.storage, launched=chosen.launched, options=how, say=say)
    if json:
        print_json({"curves": rows})
    else:
        print_found(rows, criterion)
        say_ui(place.record, chosen.name)
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
    notify: Notify = None,
    no_wait: NoWait = False,
    json: Json = False,
    record: RecordUri = None,
    storage: Storage = None,
) -> None:
    """Train what has failed or was interrupted of a sweep, or one trial, with the settings that the record has."""
    from gahb.api.place import Place
    from gahb.errors import UserError
    from gahb.planning.sweeps import Chosen
    from gahb.tracking import lookup
    from gahb.tracking.run import Tag

    book, root = Place.at(record, storage)
    runs = lookup.sweep_or_trial(book, sweep)
    name = sweep if sweep in runs[0].sweeps else runs[0].sweeps[0]
    for old in runs:
        if old.trial.dataset.hash(root) != old.tags.get(Tag.DATA_HASH):
            raise UserError(
                f"{old.name}: its images are not those of {old.trial.dataset.name} any more, which another version of "
                f"gahb drew or another file held; launch the sweep anew"
            )
    options = Options(address, cpus_per_trial, gpus_per_trial, retries, checkpoint_seconds)
    _train(Chosen([run.trial for run in runs], name), options, no_wait, json, record, storage, report, notify)


@app.command(
    panel=TRAIN,
    examples=(
        "gahb-sweep stop demo",
        "gahb-sweep stop 16x16-N64-A",
    ),
)
def stop(sweep: SweepOrRun, json: Json = False, record: RecordUri = None, storage: Storage = None) -> None:
    """Let a trial, or all of a sweep, write a checkpoint and end; `launch` or `retry` goes on from there."""
    from gahb.planning.plan import counted, shown_state, states_of
    from gahb.storage.base import record_uri, storage_here
    from gahb.tracking import lookup
    from gahb.tracking.record_writer import RecordWriter
    from gahb.tracking.run import Tag

    root = storage_here(storage)
    book = RecordWriter(record_uri(record), root.url)
    runs = lookup.sweep_or_trial(book, sweep)
    states = states_of(runs, root)
    running = [run for run in runs if states[run.run_id] == "running"]
    for run in running:
        book.tag(run.run_id, {Tag.STOP: "true"})
    if json:
        return print_json({"stopped": [run.run_id for run in running]})
    held = counted(shown_state(run, "running") for run in running)
    say(f"{held} trials will stop within seconds" if held else "nothing to stop: no trial is running")


def _train(
    chosen: "Chosen",
    options: Options,
    no_wait: bool,
    json: bool,
    record: str | None,
    storage: str | None,
    report: bool,
    notify: str | None,
) -> None:
    """Train here, on a cluster that this machine belongs to, or as a job on one that it does not."""
    place, how = _begin(chosen, options, no_wait, record, storage)
    from gahb.api.sweeps import launch_chosen
    from gahb.execution.notify import told

    with told(notify, chosen.name, *place, say):
        sweep = launch_chosen(chosen, place, how, report=report)
    _end(sweep, json)


def _begin(
    chosen: "Chosen", options: Options, no_wait: bool, record: str | None, storage: str | None
) -> tuple["Place", "LaunchOptions"]:
    """Where a command that trains does, and with what; if it is to be a job, that ends this process."""
    from gahb.execution import ray_jobs

    if ray_jobs.is_server(options.address):
        _check_paths(chosen.trials)
    stop = command_line("gahb-sweep", "stop", chosen.name)
    ray_jobs.hand_over("gahb-sweep", options.address, record, storage, wait=not no_wait, stop=stop)
    from gahb.api.place import Place
    from gahb.execution.launch import LaunchOptions

    return Place.at(record, storage), LaunchOptions(**options._asdict())


def _check_paths(trials: Sequence["Trial"]) -> None:
    """Raise UserError if a trial's images have a path that a job on a cluster cannot read."""
    from gahb.data.image_ray import BASES
    from gahb.data.sources import DATASETS
    from gahb.execution.ray_jobs import check_path

    for key, names in (("dataset", DATASETS), ("base", BASES)):
        for value in {trial.flat()[key] for trial in trials if key in trial.flat()}.difference(names):
            check_path(key, value)


def _end(sweep: "Sweep", json: bool) -> None:
    """Print what a launch has come to; exit status 1 if a trial failed."""
    if json:
        print_json({"trials": sweep.rows})
    else:
        shown = {run.run_id: run.shown_state for run in sweep}
        print_table([short({**row, "state": shown.get(row["run_id"], row["state"])}) for row in sweep.rows])
    for row in sweep.rows:
        if row["reason"]:
            say(f"{row['name']} {row['state']}: {row['reason']}")
    if not json:
        say_ui(sweep.place.record, sweep.name)
    if any(row["state"] == "failed" for row in sweep.rows):
        raise typer.Exit(1)
