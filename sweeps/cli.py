"""The command `gahb-sweep`: what can be trained, what it will cost, train it, and what has become of it.

Heavy imports stand inside the commands, so that `--help` is quick.
"""

import re
from contextlib import nullcontext
from typing import Annotated, Any, NamedTuple

import typer

from gahb.cli import (
    Address,
    App,
    Json,
    NoWait,
    RecordUri,
    Storage,
    print_json,
    print_line,
    print_table,
    print_text,
    run,
    say,
)
from gahb.denoising.levels import Gap

app = App("Train denoisers over training-set size, resolution, architecture and data.")

SweepName = Annotated[
    str, typer.Argument(metavar="NAME", help="A sweep, as `gahb-sweep list` names it, or a FILE.py with its trials.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE[,VALUE…] …]",
        help="Settings in place of the sweep's, e.g. dataset=faces.npy n_train=1,10,100 resolution=40 images=2e6.",
    ),
]
SweepOrRun = Annotated[
    str, typer.Argument(metavar="SWEEP|RUN", help="A sweep in the record, or a run id, a prefix of one, or a name.")
]
CpusPerTrial = Annotated[float, typer.Option(min=0.01, help="CPUs a trial; it runs as many threads.")]
GpusPerTrial = Annotated[
    float | None,
    typer.Option(
        min=0, help="GPUs a trial, e.g. 0.25 [as many trials a GPU as fit and keep it busy].", show_default=False
    ),
]
Retries = Annotated[int, typer.Option(min=0, help="Restarts of a trial that has got no further since the last.")]
CheckpointSeconds = Annotated[float, typer.Option(min=0, help="Least time between a trial's checkpoints.")]
Sought = Annotated[
    float | None,
    typer.Option(
        "--gap", min=0.001, max=100, help="N* is where the PSNR gap falls below so many dB.", show_default=False
    ),
]
Average = Annotated[
    Gap | None,
    typer.Option("--average", help="With --gap: evenly over σ, or over input PSNR in dB [sigma].", show_default=False),
]
Similarity = Annotated[
    float | None,
    typer.Option(
        min=0.001,
        max=0.999,
        help="N* is where the cosine of A's and B's samples, means removed, rises so far above chance.",
        show_default=False,
    ),
]
Within = Annotated[float, typer.Option(help="How far N* is narrowed: high over low of its 95 % interval.")]
SearchName = Annotated[
    str | None,
    typer.Option(
        "--as", help="Name of the search in the record [NAME-search, or NAME-small-search].", show_default=False
    ),
]
Report = Annotated[
    bool,
    typer.Option(
        "--report",
        help="Compare each pair as soon as it is trained, with what trials leave free, and report at the end.",
    ),
]
Small = Annotated[bool, typer.Option("--small", help="The sweep's small variant, minutes on a laptop.")]


@app.command("list")
def list_sweeps(json: Json = False) -> None:
    """Name every sweep with its figures and cost."""
    from gahb.registry import plugins

    from .catalog import SWEEPS, cost, description, figures, trials

    rows = [
        {"name": name, "figures": figures(name), "cost": cost(name), "description": description(name)}
        for name in SWEEPS
    ]
    guests = plugins()
    if json:
        sweeps = [{**row, "trials": len(trials(row["name"]))} for row in rows]
        return print_json({"sweeps": sweeps, "plugins": guests})
    for row in rows:
        print_line(f"{row['name']:<20}{row['description']}")
        print_line(f"{'':<20}{row['figures']}; {row['cost']}")
    for guest in guests:
        print_line(f"{guest['name']:<20}{guest['group']} of {guest['origin']}")


@app.command()
def plan(
    name: SweepName,
    overrides: Overrides = None,
    small: Small = False,
    devices: Annotated[
        int | None, typer.Option(min=1, help="GPUs or cores to reckon with [this machine's].", show_default=False)
    ] = None,
    address: Address = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="A cluster file: on which of its worker types each trial fits.", show_default=False
        ),
    ] = None,
    gap: Sought = None,
    average: Average = None,
    similarity: Similarity = None,
    within: Within = 1.3,
    experiment: SearchName = None,
    json: Json = False,
    record: RecordUri = None,
    storage: Storage = None,
) -> None:
    """Show each trial of a sweep, or the next of a search: what it costs, where it fits, what is done. Runs nothing."""
    import statistics

    from gahb import hardware
    from gahb.execution import ray_jobs, spots
    from gahb.planning import calibration
    from gahb.planning.plan import plan as plan_trials
    from gahb.storage.base import record_uri, storage_here
    from gahb.tracking.record import Record
    from gahb.tracking.run import Kind

    ray_jobs.hand_over("gahb-sweep", address, record, storage, wait=True)
    root = storage_here(storage)
    book, trials = Record(record_uri(record), root.url), _trials(name, overrides, small)
    among: list[Any] = []
    if gap or similarity:
        from gahb.execution import search as searching

        sought = searching.State(
            trials, _search_name(experiment, name, small), _criterion(gap, average, similarity), within, root, book
        )
        if pairs := sought.not_compared():
            say(f"{len(pairs)} pairs are trained and not compared yet; a search compares them first")
        units = sought.next(None if cluster else spots.room(sought.largest(), address))
        if not units and not json:
            return _print_found([sought.row(curve) for curve in sought.curves])
        trials, among = sought.trials(units), sought.among
    fits, unfit = spots.find(trials, address, cluster)
    of_kind = calibration.by_kind(book)
    speeds = {trial: of_kind(fits[trial].worker.kind if trial in fits else "") for trial in trials}
    planned = plan_trials(trials, root, book, speeds.__getitem__, among)
    rows = [{**p.row(), **(spots.columns(fits.get(p.trial)) if fits or unfit else {})} for p in planned]
    names = list(dict.fromkeys(speed.name for speed in speeds.values() if speed))
    if json:
        return print_json({"trials": rows})
    print_table(
        [
            {
                **{key: row[key] for key in ("name", "architecture", "parameters", "receptive_field", "images")},
                **({"images_reused": row["images_reused"]} if any(r["images_reused"] for r in rows) else {}),
                "flops": f"{row['flops']:.1e}",
                **({"hours": f"{row['hours']:.2g}" if row["hours"] else "–"} if names else {}),
                "memory": f"{row['memory'] / 1e9:.2g} GB",
                **{key: row[key] for key in ("worker", "gpus", "level") if key in row},
                "state": row["state"],
            }
            for row in rows
        ]
    )
    for reason in dict.fromkeys(unfit):
        say(reason)
    todo = [row for row in rows if row["state"] != "finished"]
    left = sum(_share_left(row) * row["flops"] for row in todo)
    say(f"{len(rows)} trials, {sum(row['flops'] for row in rows):.1e} FLOPs, of which {left:.1e} are not done")
    if not all(row["hours"] for row in rows):
        words = " for some of these trials" if names else ""
        say(f"nothing is known of a device's speed{words}; measure it with: gahb-sweep calibrate")
    else:
        hours = sum(row["hours"] for row in rows)
        rest = [_share_left(row) * row["hours"] for row in todo]
        here, found = hardware.here()
        at_once = devices or (found if names == [here] else 1)
        wall = max(sum(rest) / at_once, max(rest, default=0))
        sources = "/".join(sorted({row["hours_from"] for row in rows}))
        say(
            f"{hours:.3g} hours of {' and '.join(names)} (from {sources}), of which {sum(rest):.3g} are not done: "
            f"{wall:.3g} hours on {at_once}"
        )
    if ratios := calibration.past_plans(book.newest(Kind.TRIAL, calibration.RECENT)):
        typical = f"{statistics.median(ratios):.2f} times what was planned"
        say(f"past plans: {len(ratios)} trials took {typical} (median; {min(ratios):.2f} to {max(ratios):.2f})")


@app.command()
def calibrate(
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE[,VALUE…] …]",
            help="Settings in place of the ladder's, e.g. precision=bfloat16 compile=true, or resolution=80 width=32.",
        ),
    ] = None,
    json: Json = False,
    record: RecordUri = None,
    storage: Storage = None,
) -> None:
    """Measure how fast this machine's GPU, or a core of it, trains, for `plan` to reckon with. Takes a minute."""
    import torch

    from gahb import hardware
    from gahb.grids import parse_overrides
    from gahb.planning import calibration
    from gahb.storage.base import record_uri, storage_here
    from gahb.tracking.record_writer import RecordWriter

    root = storage_here(storage)
    book = RecordWriter(record_uri(record), root.url)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trials = calibration.ladder(parse_overrides(settings or []), device)
    torch.set_num_threads(1)
    run_id, rates = calibration.calibrate(trials, device, book, say)
    rows = [
        {"work": calibration.label(r.trial), "images_per_second": 1 / r.seconds, "gflops": r.flops / 1e9} for r in rates
    ]
    if json:
        return print_json({"device": hardware.name(device), "run_id": run_id, "rates": rows})
    print_table(rows)
    say(f"{hardware.name(device)}, kept in run {run_id[:8]}")


@app.command()
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
    from .catalog import find

    name = find(name)
    sweep = _experiment((f"{name}-small" if small else name) if experiment is None else experiment)
    options = _Options(address, cpus_per_trial, gpus_per_trial, retries, checkpoint_seconds)
    _train(_trials(name, overrides, small), sweep, options, no_wait, json, record, storage, report, launched=name)


@app.command()
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
    criterion = _criterion(gap, average, similarity)
    trials, sweep = _trials(name, overrides, small), _search_name(experiment, name, small)
    options = _Options(address, cpus_per_trial, gpus_per_trial, retries, checkpoint_seconds)
    root, book, chosen = _begin(trials, sweep, options, no_wait, record, storage)
    from gahb.execution import search as searching

    from .catalog import find

    state = searching.State(trials, sweep, criterion, within, root, book)
    rows, failed = searching.search(state, storage=root, launched=find(name), options=chosen, say=say)
    if json:
        print_json({"curves": rows})
    else:
        _print_found(rows)
    for row in rows:
        if row["reason"]:
            say(f"{row['curve']}: {row['reason']}")
    if failed:
        raise typer.Exit(1)


@app.command()
def status(
    sweep: Annotated[str | None, typer.Argument(metavar="[SWEEP]", help="One sweep only.", show_default=False)] = None,
    json: Json = False,
    record: RecordUri = None,
    storage: Storage = None,
) -> None:
    """Show the trials in the record."""
    from gahb.planning.plan import states_of
    from gahb.storage.base import record_uri, storage_here
    from gahb.tracking import lookup
    from gahb.tracking.record import Record
    from gahb.tracking.run import Kind

    root = storage_here(storage)
    book = Record(record_uri(record), root.url)
    runs = book.runs(Kind.TRIAL) if sweep is None else lookup.sweep_trials(book, sweep)
    states = states_of(runs, root)
    rows: list[dict[str, Any]] = [
        {
            "sweep": "/".join(run.sweeps),
            "name": run.name,
            "run_id": run.run_id,
            "state": states[run.run_id],
            "images_seen": int(run.metrics.get("images_seen", 0)),
            "images": run.flat["images"],
            "metrics": run.psnrs,
            "reason": run.reason,
        }
        for run in runs
    ]
    if json:
        return print_json({"trials": rows})
    print_table([{"sweep": row["sweep"], **_short(row), "images_seen": row["images_seen"]} for row in rows])
    for row in rows:
        if row["reason"]:
            say(f"{row['name']} ({row['run_id'][:8]}) {row['state']}: {row['reason']}")
    if not rows:
        say("no trials in the record")


@app.command()
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
    options = _Options(address, cpus_per_trial, gpus_per_trial, retries, checkpoint_seconds)
    _train([run.trial for run in runs], name, options, no_wait, json, record, storage, report)


@app.command()
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


@app.command()
def logs(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run id, a unique prefix of one, or a name.")],
    json: Json = False,
    record: RecordUri = None,
    storage: Storage = None,
) -> None:
    """Print the workers' logs of a trial, one after the other."""
    from gahb.execution import worker_log
    from gahb.storage.base import record_uri, storage_here
    from gahb.tracking import lookup
    from gahb.tracking.record import Record
    from gahb.training.checkpoint_names import folder_of

    root = storage_here(storage)
    found = lookup.find(Record(record_uri(record), root.url), run)
    texts = worker_log.texts(root, folder_of(found.signature))
    if json:
        return print_json({"run_id": found.run_id, "workers": [{"worker": w, "log": text} for w, text in texts]})
    for worker, text in texts:
        print_line(f"== {worker}")
        print_text(text)
    if not texts:
        say(f"no worker has begun {found.name}")


@app.command()
def show(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run id, a unique prefix of one, or a name.")],
    json: Json = False,
    record: RecordUri = None,
    storage: Storage = None,
) -> None:
    """Show everything the record has of one trial."""
    from gahb.planning.plan import states_of
    from gahb.storage.base import record_uri, storage_here
    from gahb.tracking import lookup
    from gahb.tracking.record import Record
    from gahb.tracking.run import METRICS, PREFIX

    root = storage_here(storage)
    book = Record(record_uri(record), root.url)
    found = lookup.find(book, run)
    histories = {key: book.history(found.run_id, key) for key in METRICS}
    data = {
        "run_id": found.run_id,
        "name": found.name,
        "state": states_of([found], root)[found.run_id],
        "sweeps": found.sweeps,
        "tags": {key: value for key, value in found.tags.items() if key.startswith(PREFIX)},
        "params": found.params,
        "metrics": found.metrics,
        "history": histories,
        "artifacts": str(book.artifacts(found.run_id, keep=True)) if found.state == "finished" else None,
    }
    if json:
        return print_json(data)
    for key in ("run_id", "name", "state", "artifacts"):
        print_line(f"{key:<20}{data[key] if data[key] is not None else '–'}")
    for key, value in {"sweeps": "/".join(found.sweeps), **found.params}.items():
        print_line(f"{key:<20}{value}")
    print_line()
    steps = [step for step, _ in histories[METRICS[0]]]
    columns = {key: dict(pairs) for key, pairs in histories.items()}
    print_table([{"images_seen": step, **{key: columns[key].get(step) for key in METRICS}} for step in steps])


@app.command()
def data(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="A registered name or a path.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE …]", help="resolution=… and n_train=…; n_test and the data set's own keys."),
    ] = None,
    json: Json = False,
    storage: Storage = None,
) -> None:
    """Prepare a data set and show what is in it: its manifest, some images, how close A and B come (Figure 6)."""
    import numpy as np

    from gahb.data.dataset import prepare
    from gahb.figures import dataset as pictures
    from gahb.figures.style import save
    from gahb.storage.base import storage_here

    trial = _data_trial(dataset, settings or [])
    root = storage_here(storage)
    if (count := trial.dataset.source.count) is not None:
        trial.split.check_size(count, trial.dataset.name)
    prepared = prepare(trial.dataset, root, trial.split.needed, say)
    manifest = prepared.manifest
    trial.split.check(prepared, trial.dataset.name)
    cosines = pictures.closest_pairs(prepared, trial.split)
    folder = f"data/{manifest['hash']}"
    sheet, histogram = f"{folder}/contact-sheet.png", f"{folder}/closest-pairs-N{trial.n_train}.png"
    first = pictures.shown(prepared, np.arange(min(manifest["count"], pictures.SHEET)))
    threshold = manifest["recipe"].get("duplicates", 1.0)
    with root.scratch() as work:
        for name, picture in (
            (sheet, pictures.contact_sheet(first)),
            (histogram, pictures.closest_pairs_histogram(cosines, threshold)),
        ):
            save(picture, work / "picture.png")
            root.upload(work / "picture.png", name)
    sheet, histogram, folder = (f"{root.uri}/{name}" for name in (sheet, histogram, folder))
    closest = {"n_train": trial.n_train, "median": float(np.median(cosines)), "max": float(cosines.max())}
    if json:
        paths = {"contact_sheet": sheet, "closest_pairs": histogram}
        return print_json({"manifest": manifest, "closest_pairs": closest, "pictures": paths, "folder": folder})
    facts = {key: value for key, value in {**manifest, **manifest["recipe"]}.items() if key != "recipe"}
    facts |= {f"closest pair, {key}": f"{closest[key]:.3f}" for key in ("median", "max")}
    width = max(map(len, facts)) + 2
    for key, value in facts.items():
        print_line(f"{key:<{width}}{value}")
    say(f"pictures: {sheet} {histogram}")


def _share_left(row: dict[str, Any]) -> float:
    """The share of a planned trial's images that no other trial of its course has seen."""
    return 1 - float(row["images_reused"]) / float(row["images"])


def _data_trial(dataset: str, words: list[str]) -> Any:
    """A trial on the data set, which says what to prepare; a BF-CNN takes every resolution."""
    from gahb.errors import UserError
    from gahb.grids import parse_overrides
    from gahb.trial import Trial

    settings = parse_overrides(words)
    trial = Trial.of(
        {**{key: values[0] for key, values in settings.items()}, "dataset": dataset, "architecture": "bf_cnn"}
    )
    for key, values in settings.items():
        if key not in {*trial.dataset.flat(), "n_train", "n_test"} - {"dataset"}:
            raise UserError(f"{key} does not apply to a data set")
        if len(values) > 1:
            raise UserError(f"{key}: one value at a time")
    return trial


def _trials(name: str, overrides: list[str] | None, small: bool) -> list[Any]:
    from gahb.grids import parse_overrides

    from .catalog import find, trials

    name = find(name)  # first, as its file may bring keys
    return trials(name, parse_overrides(overrides or []), small=small)


def _check_paths(trials: list[Any]) -> None:
    """Raise UserError if a trial's images have a path that a job on a cluster cannot read."""
    from gahb.data.image_ray import BASES
    from gahb.data.sources import DATASETS
    from gahb.execution.ray_jobs import check_path

    for key, names in (("dataset", DATASETS), ("base", BASES)):
        for value in {trial.flat()[key] for trial in trials if key in trial.flat()}.difference(names):
            check_path(key, value)


def _experiment(name: str) -> str:
    from gahb.errors import UserError

    if not re.fullmatch("[A-Za-z0-9_-]{1,100}", name):
        raise UserError(f"--as {name}: letters, digits, - and _ only, at most 100")
    return name


class _Options(NamedTuple):
    """The options that `launch` and `retry` share, with the fields of `LaunchOptions`, which is slow to import."""

    address: str | None
    cpus: float
    gpus: float | None
    retries: int
    checkpoint_seconds: float


def _train(
    trials: list[Any],
    sweep: str,
    options: _Options,
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
    trials: list[Any], sweep: str, options: _Options, no_wait: bool, record: str | None, storage: str | None
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


def _criterion(gap: float | None, average: Gap | None, similarity: float | None) -> Any:
    """What N* is."""
    from gahb.errors import UserError
    from gahb.execution.search import Criterion

    if (gap is None) == (similarity is None):
        raise UserError("say what N* is: either --gap DB or --similarity COSINE")
    if gap is None and average:
        raise UserError("--average is of the PSNR gap, and goes with --gap")
    return Criterion(gap, average or Gap.SIGMA) if gap else Criterion(similarity or 0, None)


def _search_name(given: str | None, name: str, small: bool) -> str:
    from .catalog import find

    return _experiment(f"{find(name)}{'-small' if small else ''}-search" if given is None else given)


def _print_found(rows: list[dict[str, Any]]) -> None:
    """What a search has found, as a table, and what a grid would have cost."""
    keys = ("curve", "n_star", "low", "high", "bound", "trials", "images_spent", "grid_images")
    print_table([{key: row[key] for key in keys} for row in rows])
    spent, known, grid = (sum(row[key] for row in rows) for key in ("images_spent", "images_known", "grid_images"))
    before = f", beside {known:.3g} of trials that were there" if known else ""
    say(f"{spent:.3g} images seen{before}; grids of such steps see {grid:.3g}")


def _end(rows: list[dict[str, Any]], json: bool) -> None:
    """Print what a launch has come to; exit status 1 if a trial failed."""
    if json:
        print_json({"trials": rows})
    else:
        print_table([_short(row) for row in rows])
    for row in rows:
        if row["reason"]:
            say(f"{row['name']} {row['state']}: {row['reason']}")
    if any(row["state"] == "failed" for row in rows):
        raise typer.Exit(1)


def _short(row: dict[str, Any]) -> dict[str, Any]:
    trained = {"trained": "yes" if row["trained"] else "no"} if "trained" in row else {}
    metrics = {key: row["metrics"].get(key) for key in ("train_psnr", "test_psnr", "psnr_gap", "psnr_gap_db")}
    return {"name": row["name"], "run_id": (row["run_id"] or "–")[:8], "state": row["state"], **trained, **metrics}


def main() -> None:
    """Entry point."""
    run(app, "gahb-sweep")
