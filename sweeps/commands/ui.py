"""The MLflow UI on the record: `ui`."""

from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Annotated

import typer

from gahb.cli import Json, RecordUri, Storage, print_json, print_line, say

from . import LOOK, app

if TYPE_CHECKING:
    from subprocess import Popen

HOST = "127.0.0.1"
"""Where the UI listens: on this machine alone, as it asks nobody for a password."""

PATIENCE_SECONDS = 120
"""How long MLflow may take to start."""


@app.command(
    panel=LOOK,
    examples=(
        "gahb-sweep ui demo",
        "gahb-sweep ui demo --port 5050 --open",
    ),
)
def ui(
    sweep: Annotated[str | None, typer.Argument(metavar="[SWEEP]", help="What to open.", show_default=False)] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where it listens, on this machine alone.")] = 5000,
    in_browser: Annotated[bool, typer.Option("--open", help="Open it in a browser, too.")] = False,
    json: Json = False,
    record: RecordUri = None,
    storage: Storage = None,
) -> None:
    """Start the MLflow UI on the record, and say where it shows a sweep; Ctrl-C ends it."""
    import webbrowser

    from gahb.api.place import Place
    from gahb.errors import UserError
    from gahb.tracking import lookup

    book = Place.at(record, storage).record
    if not book.exists:
        raise UserError(f"there is no record {book.uri}; launch a sweep first, or name the record with --record")
    page = "#/experiments"
    if sweep:
        lookup.sweep_trials(book, sweep)
        page = book.url(sweep)

    def show(server: str) -> None:
        address = f"{server.rstrip('/')}/{page}"
        if json:
            print_json({"url": address})
        else:
            print_line(address)
        if in_browser:
            webbrowser.open(address)

    if book.uri.startswith("http"):
        show(book.uri)
    else:
        _serve(book.uri, port, show)


def _serve(uri: str, port: int, show: Callable[[str], None]) -> None:
    """Run MLflow's server on a record that has none until Ctrl-C, and show its address once it answers."""
    import os
    import signal
    import sys
    import tempfile

    from gahb import child

    _check_free(port)
    words = ("server", "--host", HOST, "--port", str(port), "--workers", "1")
    variables = {
        "MLFLOW_BACKEND_STORE_URI": uri,  # which may hold a password, and others read command lines
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with tempfile.TemporaryFile() as talk:
        server = child.start("mlflow", *words, variables=variables, stdout=talk, stderr=talk)
        try:
            _wait_for(server, port, talk)
            show(f"http://{HOST}:{port}")
            say("Ctrl-C ends the server")
            sys.stdout.flush()
            server.wait()
        except KeyboardInterrupt:
            pass
        finally:
            os.killpg(server.pid, signal.SIGTERM)  # its workers, too
            server.wait()


def _check_free(port: int) -> None:
    """Raise UserError if something listens at a port."""
    import socket

    from gahb.errors import UserError

    with socket.socket() as asked:
        if asked.connect_ex((HOST, port)) == 0:
            raise UserError(f"something listens at port {port} already; choose another with --port")


def _wait_for(server: "Popen[bytes]", port: int, talk: IO[bytes]) -> None:
    """Wait until a server answers.

    Raises:
        UserError: it does not, or has ended; with the last of what it said.
    """
    import time
    from contextlib import closing, suppress
    from http.client import HTTPConnection

    from gahb.errors import UserError

    end = time.monotonic() + PATIENCE_SECONDS
    while server.poll() is None and time.monotonic() < end:
        with suppress(OSError), closing(HTTPConnection(HOST, port, timeout=5)) as connection:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.2)
    talk.seek(0)
    lines = talk.read().decode(errors="replace").strip().splitlines()
    raise UserError(f"the MLflow UI does not start: {lines[-1] if lines else f'status {server.returncode}'}")
