"""The command `gahb-analyze`: questions to finished trials. Every answer is logged to the record as a run.

Each analysis is a command made from the signature of its function: parameters without a default are arguments, the
others options.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from gahb.cli import (
    Address,
    App,
    Json,
    NoWait,
    RecordUri,
    Storage,
    command_of,
    parameter,
    parameters_of,
    print_json,
    print_line,
    print_table,
    run,
    say,
    say_ui,
)
from gahb.errors import UserError
from gahb.execution.analysis import description_of
from gahb.registry import ANALYSES

COMMON = [parameter("json", Json, False), parameter("record", RecordUri, None), parameter("storage", Storage, None)]
ON_CLUSTER = [parameter("address", Address, None), parameter("no_wait", NoWait, False)]


def _add_commands() -> None:
    """Make a command of every analysis, guests' included."""
    own = [command for command in app.registered_commands if command.name == "import"]
    app.registered_commands = []
    try:
        for name in ANALYSES:
            _add_command(name)
    finally:
        app.registered_commands += own


app = App(
    "Compare finished trials and draw the paper's figures from them.",
    (
        "gahb-analyze report demo                 # all that applies, on one page",
        "gahb-analyze pair 16x16-N64-A 16x16-N64-B",
    ),
    _add_commands,
)


def _add_command(name: str) -> None:
    analyse = ANALYSES[name]
    own = [p for p in parameters_of(analyse) if p.name != "context"]
    description = description_of(name, analyse)
    shared = [*(ON_CLUSTER if description.on_cluster else []), *COMMON]
    what = f"the analysis {name!r} of {ANALYSES.origin(name)}"
    if taken := {p.name for p in own} & {p.name for p in shared}:
        raise UserError(f"{what}: its option {min(taken)!r} is one that the command has already; name it otherwise")

    def call(values: dict[str, Any]) -> None:
        _run_analysis(name, {p.name: values.pop(p.name) for p in own}, **values)

    command = command_of(call, [*own, *shared], analyse)
    if ANALYSES.guest(name):
        try:
            alone = App("")
            alone.command(name, panel="", examples=())(command)
            typer.main.get_command(alone)
        except Exception as error:  # of many kinds
            raise UserError(f"{what} cannot be a command: {error}") from None
    app.command(name, panel=description.panel, examples=description.examples)(command)


@app.command("import", panel="Reports and imports", examples=("gahb-analyze import UNet_celeba.pt --as published",))
def import_(
    file: Annotated[Path, typer.Argument(help="A checkpoint of the authors: UNet, BF_CNN, BF_CNN_RF or DnCNN.")],
    name: Annotated[str | None, typer.Option("--as", help="The run's name [the file's].")] = None,
    resolution: Annotated[
        int | None, typer.Option(min=1, help="Pixels a side to sample at [Table 1's for a UNet, else 40].")
    ] = None,
    first_relu: Annotated[
        bool, typer.Option("--first-relu", help="A BF_CNN that was trained with first_layer_linear=False.")
    ] = False,
    json: Json = False,
    record: RecordUri = None,
    storage: Storage = None,
) -> None:
    """Turn a published checkpoint into a finished run. Nothing in the file is executed."""
    from gahb.storage.base import record_uri, storage_here
    from gahb.tracking.record_writer import RecordWriter

    from .importing import import_checkpoint

    book = RecordWriter(record_uri(record), storage_here(storage).url)
    name = name or file.stem
    run = import_checkpoint(book, file, name=name, resolution=resolution, first_relu=first_relu)
    if json:
        return print_json({"run_id": run.run_id, "name": run.name, "signature": run.signature, "params": run.params})
    for key, value in {"run_id": run.run_id, "name": run.name, **run.params}.items():
        print_line(f"{key:<20}{value}")


def _run_analysis(
    name: str,
    options: dict[str, Any],
    json: bool,
    record: str | None,
    storage: str | None,
    address: str | None = None,
    no_wait: bool = False,
) -> None:
    """Run an analysis, log its result, and print it."""
    from gahb.execution import ray_jobs

    ray_jobs.hand_over("gahb-analyze", address, record, storage, wait=not no_wait)
    from gahb.api.answers import ask
    from gahb.execution.analysis import AnalysisContext

    context = AnalysisContext.open(record, storage, address)
    answer = ask(name, context, options)
    result, folder = answer.result, answer.folder
    if json:
        return print_json({"run_id": answer.run_id, **result.data, "artifacts": str(folder)})
    for rows in result.shown:
        print_table(rows)
    for line in result.lines:
        print_line(line)
    for stem in result.pictures:
        say(f"picture: {folder / f'{stem}.png'}")
    for file in result.texts:
        say(f"page: {folder / file}")
    say_ui(context.record, result.of_sweep)


def main() -> None:
    """Entry point."""
    run(app, "gahb-analyze")


if __name__ == "__main__":
    main()
