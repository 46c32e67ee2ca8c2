"""What the record knows: `status`, `show`, `logs`."""

from typing import Annotated

import typer

from gahb import completion
from gahb.cli import Json, RecordUri, Storage, print_json, print_line, print_table, print_text, say

from . import LOOK, app
from .options import RunName
from .rows import short


@app.command(
    panel=LOOK,
    examples=(
        "gahb-sweep status",
        "gahb-sweep status demo --watch     # a table that follows the trials, from anywhere",
        "gahb-sweep status demo --json",
    ),
)
def status(
    sweep: Annotated[
        str | None,
        typer.Argument(
            metavar="[SWEEP]", help="One sweep only.", show_default=False, autocompletion=completion.recorded_sweeps
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the trials until none runs any more.")] = False,
    json: Json = False,
    record: RecordUri = None,
    storage: Storage = None,
) -> None:
    """Show the trials in the record."""
    from gahb.api.place import Place
    from gahb.execution import live
    from gahb.planning.plan import shown_state, states_of, status_rows
    from gahb.tracking import lookup
    from gahb.tracking.run import Kind, Run

    book, root = Place.at(record, storage)

    def read() -> list[Run]:
        return book.runs(Kind.TRIAL) if sweep is None else lookup.sweep_trials(book, sweep)

    if watch:
        try:
            live.watch(live.Board(sweep or "all sweeps", read, root), say)
        except KeyboardInterrupt:  # who looks no longer interrupts nothing
            return
    runs = read()
    rows = status_rows(runs, states_of(runs, root))
    if json:
        return print_json({"trials": rows})
    rows = [{**row, "state": shown_state(run, row["state"])} for run, row in zip(runs, rows, strict=True)]
    print_table([{"sweep": row["sweep"], **short(row), "images_seen": row["images_seen"]} for row in rows])
    for row in rows:
        if row["reason"]:
            say(f"{row['name']} ({row['run_id'][:8]}) {row['state']}: {row['reason']}")
    if not rows:
        say("no trials in the record")


@app.command(
    panel=LOOK,
    examples=("gahb-sweep logs 16x16-N64-A",),
)
def logs(
    run: RunName,
    json: Json = False,
    record: RecordUri = None,
    storage: Storage = None,
) -> None:
    """Print the workers' logs of a trial, one after the other."""
    from gahb.api.place import Place
    from gahb.execution import worker_log
    from gahb.tracking import lookup
    from gahb.training.checkpoint_names import folder_of

    book, root = Place.at(record, storage)
    found = lookup.find(book, run)
    texts = worker_log.texts(root, folder_of(found.signature))
    if json:
        return print_json({"run_id": found.run_id, "workers": [{"worker": w, "log": text} for w, text in texts]})
    for worker, text in texts:
        print_line(f"== {worker}")
        print_text(text)
    if not texts:
        say(f"no worker has begun {found.name}")


@app.command(
    panel=LOOK,
    examples=(
        "gahb-sweep show 16x16-N64-A",
        "gahb-sweep show 4f1c09 --json     # a prefix of a run id",
    ),
)
def show(
    run: RunName,
    json: Json = False,
    record: RecordUri = None,
    storage: Storage = None,
) -> None:
    """Show everything the record has of one trial."""
    from gahb.api.place import Place
    from gahb.planning.plan import shown_state, states_of
    from gahb.tracking import lookup
    from gahb.tracking.run import METRICS, PREFIX

    book, root = Place.at(record, storage)
    found = lookup.find(book, run)
    state = states_of([found], root)[found.run_id]
    histories = {key: book.history(found.run_id, key) for key in METRICS}
    data = {
        "run_id": found.run_id,
        "name": found.name,
        "state": state,
        "sweeps": found.sweeps,
        "tags": {key: value for key, value in found.tags.items() if key.startswith(PREFIX)},
        "params": found.params,
        "metrics": found.metrics,
        "history": histories,
        "artifacts": str(book.artifacts(found.run_id, keep=True)) if found.state == "finished" else None,
    }
    if json:
        return print_json(data)
    data["state"] = shown_state(found, state)
    for key in ("run_id", "name", "state", "artifacts"):
        print_line(f"{key:<20}{data[key] if data[key] is not None else '–'}")
    for key, value in {"sweeps": "/".join(found.sweeps), **found.params}.items():
        print_line(f"{key:<20}{value}")
    print_line()
    steps = [step for step, _ in histories[METRICS[0]]]
    columns = {key: dict(pairs) for key, pairs in histories.items()}
    print_table([{"images_seen": step, **{key: columns[key].get(step) for key in METRICS}} for step in steps])
