"""The connection to Ray: to a cluster, or to one of this machine's own that ends with it.

Ray reads its settings from the environment when it is imported, so it is imported after they are made.
"""

import contextlib
import logging
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gahb.errors import UserError
from gahb.execution.code import code
from gahb.own_folder import own_folder
from gahb.tracking.preflight import check_listening

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # it reports to a host outside
    "MLFLOW_DISABLE_TELEMETRY": "true",  # the same; Ray imports MLflow
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the record is MLflow's
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # an interrupt is ours
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_enable_metrics_collection": "0",  # they answer without a token
    "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1",  # inside a job, whose own holds the same code
}
"""Environment variables, where the user has not set them."""

ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(8 << 30),
    "MALLOC_TOP_PAD_": str(256 << 20),
    "MALLOC_ARENA_MAX": "1",
}
"""Lets glibc keep freed memory in workers; by default it returns every large activation to the system at each step.
One arena, because Tune trains in a thread, and a thread's own arena gives back whatever exceeds 64 MiB."""

LONGEST_SOCKET = "ray-12345678/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store.1"
"""What Ray's longest name of a socket looks like, of whose path the system takes 107 bytes."""


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[None]:
    """A connection to the cluster at an address (or at `RAY_ADDRESS`), or else a Ray of this machine's own.

    Raises:
        UserError: no cluster at the address, or none that starts here.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    for key, value in SETTINGS.items():
        os.environ.setdefault(key, value)
    if not address and "ray" not in sys.modules:  # a token of its own, which no file keeps
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    logging.getLogger("ray.widgets.util").setLevel(logging.WARNING)  # in a notebook it asks for widgets
    import ray

    if ray.is_initialized():
        yield
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        if address:
            check_reachable(address)
            check_token()
            folder = stack.enter_context(code())
            with _told(f"no Ray cluster to be had at {address}"):
                ray.init(address, runtime_env={"working_dir": str(folder), "env_vars": ALLOCATOR}, **quiet)
        else:
            session = stack.enter_context(_session_folder())
            with _inherited(ALLOCATOR), _told("Ray does not start here; on a busy machine, try again"):
                ray.init("local", include_dashboard=False, _temp_dir=session, **quiet)
        ray._private.worker._worker_logs_enabled = False  # what became of workers and nodes, the record and we say
        stack.callback(ray.shutdown)
        yield


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Tell in a line what Ray raises, of many kinds, when it starts or connects."""
    try:
        yield
    except Exception as error:
        raise UserError(f"{what}: {str(error).strip().splitlines()[0]}") from None


@contextlib.contextmanager
def _session_folder() -> Iterator[str]:
    """A folder for a Ray of this machine's own, removed at the end. Ray opens it to everybody; what is around it stays
    closed."""
    around = own_folder()
    if len(f"{around}/{LONGEST_SOCKET}") > 107:
        around = own_folder(root=Path("/tmp"))
    with tempfile.TemporaryDirectory(prefix="ray-", dir=around, ignore_cleanup_errors=True) as folder:
        yield folder


@contextlib.contextmanager
def _inherited(variables: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for the processes that are started in this block."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        for key in variables:
            del os.environ[key]
        os.environ.update({key: before[key] for key in variables if key in before})


def check_token() -> None:
    """Raise UserError if others may read the token with which this process connects to a cluster, if it uses one."""
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
    if os.environ.get("RAY_AUTH_MODE") != "token" or os.environ.get("RAY_AUTH_TOKEN") or not file.exists():
        return
    about = file.stat()
    if about.st_uid == os.getuid() and about.st_mode & 0o077:
        raise UserError(
            f"others may read {file}, and with it run code on the cluster: chmod 600 {file}, and if this machine has "
            "other users, make a new token: (umask 077; ray get-auth-token --generate)"
        )


def check_reachable(address: str) -> None:
    """Raise UserError if nothing listens at [scheme://]host:port; Ray itself would try for minutes."""
    host, _, port = address.rpartition("://")[2].rstrip("/").rpartition(":")
    if host and port.isdigit():
        try:
            check_listening(host, int(port))
        except (OSError, OverflowError) as error:
            raise UserError(f"no Ray cluster to be had at {address}: {error}") from None
