"""The way onto a cluster from outside of it, such as from a laptop: a command becomes a job on the head node.

    gahb-sweep launch demo --address http://127.0.0.1:8265

The job is the same command line with `--address auto`. The code travels with it, and so do the names of the record and
of the storage, but nothing that means this machine only: an address on the loopback interface is the end of a tunnel,
and the cluster's nodes have a setting of their own for what lies behind it. No password or key travels, because Ray
shows a job's environment to whoever asks and writes it to command lines: the nodes have their own.

A job has one log. In it data are the lines that begin with DATA, written when the command has ended; the others are
what it says on the way. So each reaches its stream here, stdout or stderr.
"""

import asyncio
import contextlib
import io
import logging
import os
import re
import shlex
import socket
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gahb import cli
from gahb.errors import UserError
from gahb.execution import connection
from gahb.execution.code import at_destination, code
from gahb.text import without_passwords

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

APPS = {"gahb-sweep": "gahb_sweeps.cli", "gahb-analyze": "gahb_analysis.cli"}
DATA = "data| "

TRAVELLING = (
    "MLFLOW_TRACKING_URI",
    "GAHB_STORAGE",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
)
"""The environment variables that a job receives."""

LOOPBACK = re.compile(r"//([^/]*@)?(localhost|127\.|\[::1\])")

SETTINGS = {
    "RAY_JOB_STOP_SIGNAL": "SIGINT",  # a stopped job ends as an interrupted command
    "RAY_JOB_STOP_WAIT_TIME_S": "60",  # and has the time to say so in the record
}

NEEDED = {
    "MLFLOW_TRACKING_URI": "no record: give --record http://…",
    "GAHB_STORAGE": "no storage: give --storage, s3://… or a folder that all nodes share",
}


def check_path(key: str, path: str) -> None:
    """Raise UserError for a path that means something else on the cluster."""
    if not Path(path).is_absolute():
        raise UserError(f"{key}={path}: a job looks for it on the cluster; give its absolute path there")


def is_server(address: str | None) -> bool:
    """Whether the address is a job server's."""
    return bool(address and address.startswith(("http://", "https://")))


def hand_over(
    command: str, address: str | None, record: str | None, storage: str | None, *, wait: bool, stop: str | None = None
) -> None:
    """If the address is a job server's, end this process with the exit status of its command line as a job there.

    Args:
        command: "gahb-sweep" or "gahb-analyze".
        address: that was given.
        record: where runs are kept, if it was given.
        storage: that was given.
        wait: follow the job; else end as soon as it is submitted.
        stop: the command that stops the job; Ray's if left out.

    Raises:
        UserError: no job server at the address or none that takes this machine's token, a record or storage that is
            this machine's own, or a connection that broke while the job was followed.
    """
    if address and is_server(address):
        sys.exit(_submit(command, address, record, storage, wait, stop))


def _submit(command: str, address: str, record: str | None, storage: str | None, wait: bool, stop: str | None) -> int:
    """Submit this process's command line, follow the job's log, and return its exit status."""
    environment = {**_environment(record, storage, os.environ), **SETTINGS}
    connection.check_reachable(address)
    own = at_destination(_without(sys.argv[1:], "--address", "--record", "--storage"))
    words = [command, *own, "--address", "auto"]
    entrypoint = shlex.join(["exec", "python", "-m", __name__, *(word for word in words if word != "--no-wait")])
    os.environ["RAY_API_SERVER_ADDRESS"] = address  # it goes before the client's argument
    if "ray" not in sys.modules:  # it reads this on import; a cluster without authentication ignores the token
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    connection.check_token()
    logging.disable(logging.WARNING)  # Ray's talk about uploads
    with _reaching(address), code() as folder:
        from ray.job_submission import JobSubmissionClient

        client = JobSubmissionClient(address)
        job = client.submit_job(
            entrypoint=entrypoint,
            submission_id=f"{words[1]}-{uuid.uuid4().hex[:6]}",
            runtime_env={"working_dir": str(folder), "env_vars": environment},
            entrypoint_num_cpus=0,
        )
    cli.say(f"job {job} on {address}")
    how = f"{stop or f'ray job stop --address {address} {job}'} stops it"
    if not wait:
        cli.say(f"ray job logs --address {address} --follow {job} follows it; {how}")
        return 0
    try:
        return _follow(client, job)
    except KeyboardInterrupt:
        cli.say(f"{command}: job {job} goes on; {how}")
        return cli.INTERRUPTED


def _follow(client: "JobSubmissionClient", job: str) -> int:
    """Print a job's log until it ends, and return its exit status."""

    async def lines() -> None:
        rest, begun = "", False
        async for text in client.tail_job_logs(job):
            *whole, rest = (rest + text).split("\n")
            for line in whole:
                if not begun:  # Ray's own talk
                    begun = line.startswith("Running entrypoint for job")
                elif line.startswith(DATA):
                    cli.print_line(line.removeprefix(DATA))
                else:
                    cli.say(line)

    with _reaching(f"{client.get_address()} any more; job {job} goes on there"):
        asyncio.run(lines())
        details = client.get_job_info(job)
    if details.driver_exit_code is not None:
        return details.driver_exit_code
    if details.status == "STOPPED":
        return cli.INTERRUPTED
    cli.say(f"job {job} failed: {(details.message or 'no reason given').strip().splitlines()[-1]}")
    return 1


@contextlib.contextmanager
def _reaching(address: str) -> Iterator[None]:
    """Turn what Ray raises where a job server does not answer as it should into a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # of Ray, requests, aiohttp
        words = str(error).strip() or type(error).__name__
        if "uthentication" in words:
            words = "it refuses this machine's token (RAY_AUTH_TOKEN, or the file ~/.ray/auth_token)"
        raise UserError(f"no Ray cluster to be had at {address}: {words.splitlines()[0]}") from None


def _environment(record: str | None, storage: str | None, here: Mapping[str, str]) -> dict[str, str]:
    """The environment variables that a job receives."""
    found = {key: value for key, value in here.items() if key in TRAVELLING and not LOOPBACK.search(value)}
    given = {"MLFLOW_TRACKING_URI": record, "GAHB_STORAGE": storage}
    found.update({key: value for key, value in given.items() if value})
    for key, value in found.items():
        if value != without_passwords(value):
            raise UserError(
                f"{key} {without_passwords(value)} has a password, which others could read on the cluster; leave it "
                "out and let the nodes have it: MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD in their settings"
            )
    uri, folder = found.get("MLFLOW_TRACKING_URI"), found.get("GAHB_STORAGE")
    if uri and _is_a_file(uri):
        raise UserError(f"the record {uri} is a file of this machine, which a job cannot use; give --record http://…")
    if folder and "://" not in folder:
        check_path("--storage", folder)
    return found


def _is_a_file(uri: str) -> bool:
    return uri.startswith(("sqlite:", "file:")) or "://" not in uri


def _without(words: list[str], *options: str) -> list[str]:
    """A command line without some options and their values."""
    kept = []
    rest = iter(words)
    for word in rest:
        if word in options:
            next(rest)
        elif word.partition("=")[0] not in options:
            kept.append(word)
    return kept


def main() -> None:
    """What a job runs: the command whose name and arguments follow."""
    name = sys.argv.pop(1)
    app: Any = import_module(APPS[name]).app
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            cli.run(_complete(app), f"{name} (on {socket.gethostname()})")
    finally:
        for line in out.getvalue().splitlines():
            print(DATA + line)


def _complete(app: Callable[..., Any]) -> Callable[..., Any]:
    """The app, if the nodes' settings and the command's together say where record and storage are."""

    def checked(*words: Any, **options: Any) -> Any:
        for key, missing in NEEDED.items():
            value = os.environ.get(key)
            if not value or (key == "MLFLOW_TRACKING_URI" and _is_a_file(value)):
                raise UserError(f"{missing}, or set {key} on the cluster's nodes")
        return app(*words, **options)

    return checked


if __name__ == "__main__":
    main()
