"""Before training: what can be trained, what it will cost, how fast this machine is, what is in a data set."""

from typing import Annotated, Any

import typer

from gahb import completion
from gahb.cli import Address, Json, RecordUri, Storage, print_json, print_line, print_table, say

from . import PLAN, app
from .options import (
    Average,
    Overrides,
    SearchName,
    Similarity,
    Small,
    Sought,
    SweepName,
    Within,
    criterion_of,
    settings_of,
)
from .rows import print_found


@app.command(
    "list",
    panel=PLAN,
    examples=(
        "gahb-sweep list",
        "gahb-sweep list --json",
    ),
)
def list_sweeps(json: Json = False) -> None:
    """Name every sweep with its figures and cost."""
    from gahb.planning.sweeps import sweep_trials
    from gahb.registry import plugins

    from ..catalog import SWEEPS, cost, description, figures

    rows = [
        {"name": name, "figures": figures(name), "cost": cost(name), "description": description(name)}
        for name in SWEEPS
    ]
    guests = plugins()
    if json:
        sweeps = [{**row, "trials": len(sweep_trials(row["name"]))} for row in rows]
        return print_json({"sweeps": sweeps, "plugins": guests})
    for row in rows:
        print_line(f"{row['name']:<20}{row['description']}")
        print_line(f"{'':<20}{row['figures']}; {row['cost']}")
    for guest in guests:
        print_line(f"{guest['name']:<20}{guest['group']} of {guest['origin']}")


@app.command(
    panel=PLAN,
    examples=(
        "gahb-sweep plan demo",
        "gahb-sweep plan transition dataset=disks resolution=40 n_train=1,10,100 images=2e6",
        "gahb-sweep plan resolution_scaling --cluster cluster.yaml --price gpu-24gb=1,gpu-96gb=4",
        "gahb-sweep plan demo n_train=4,1024 --gap 1.0     # the first trials of a search",
    ),
)
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
    price: Annotated[
        str | None,
        typer.Option(
            metavar="P",
            help="Price of a device-hour, or of one of each worker type: gpu-24gb=1,gpu-96gb=4.",
            show_default=False,
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
    from gahb.api.place import Place
    from gahb.api.plans import plan_trials
    from gahb.execution import ray_jobs, spots
    from gahb.planning.sweeps import choose, trials_of

    ray_jobs.hand_over("gahb-sweep", address, record, storage, wait=True)
    place, settings = Place.at(record, storage), settings_of(name, overrides)
    trials, among = trials_of(name, settings, small=small), list[Any]()
    if gap or similarity:
        from gahb.execution import search as searching

        criterion = criterion_of(gap, average, similarity)
        search = choose(name, settings, small=small, name=experiment, ending="-search").name
        sought = searching.State(trials, search, criterion, within, place.storage, place.record)
        if pairs := sought.not_compared():
            say(f"{len(pairs)} pairs are trained and not compared yet; a search compares them first")
        units = sought.next(None if cluster else spots.room(sought.largest(), address))
        if not units and not json:
            return print_found([sought.row(curve) for curve in sought.curves], criterion)
        trials, among = sought.trials(units), sought.among
    found = plan_trials(trials, place, devices=devices, address=address, cluster=cluster, price=price, among=among)
    if json:
        return print_json({"trials": found.rows})
    print_table(found.shown)
    for line in found.lines:
        say(line)


@app.command(
    panel=PLAN,
    examples=(
        "gahb-sweep calibrate",
        "gahb-sweep calibrate resolution=80 width=32 precision=bfloat16",
    ),
)
def calibrate(
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE[,VALUE…] …]",
            help="Settings in place of the ladder's, e.g. precision=bfloat16 compile=true, or resolution=80 width=32.",
            autocompletion=completion.settings,
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


@app.command(
    panel=PLAN,
    examples=(
        "gahb-sweep data disks resolution=40 n_train=1000",
        "gahb-sweep data /data/img_align_celeba.zip resolution=80 n_train=10000",
    ),
)
def data(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="A registered name or a path.", autocompletion=completion.datasets)
    ],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE …]",
            help="resolution=… and n_train=…; n_test and the data set's own keys.",
            autocompletion=completion.settings,
        ),
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
