"""The connection to MLflow: its settings, whether there is a record at all, and which calls may be repeated.

Every call but one may be made twice: what is read stays, and what is written is written over by itself (a metric by its
step and time, a tag or param by its key, a status, a file). `create_run` alone makes something new each time; whoever
calls it answers for that (`RecordWriter.create`), and nothing here repeats it.
"""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gahb.errors import UserError
from gahb.storage import retry
from gahb.storage.retry import with_retries
from gahb.tracking.preflight import check_database, check_record
from gahb.tracking.schema import check_schema

HTTP_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
"""How often MLflow itself repeats a request, of whatever kind."""

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # it writes into the home directory
os.environ.setdefault(HTTP_RETRIES, "2")  # a user waits seconds; who can wait longer does so with `with_retries`
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # where the commands print data

if TYPE_CHECKING:  # it takes two seconds to import, and a plan without a record can do without it
    from mlflow import MlflowClient

logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)

IDEMPOTENT = frozenset(
    {
        "create_experiment",  # of two with one name MLflow refuses the second
        "download_artifacts",
        "get_experiment_by_name",
        "get_metric_history",
        "get_run",
        "list_artifacts",
        "log_artifacts",
        "log_batch",
        "log_inputs",
        "log_text",
        "search_experiments",
        "search_runs",
        "set_experiment_tag",
        "set_terminated",
        "update_run",
    }
)
"""The client's methods that are retried."""


def connect(uri: str, *, retry: bool) -> "MlflowClient":
    """MLflow's client of the record at a tracking URI. A fresh SQLite file gets its tables here, one process at a time:
    two at once break it.

    Args:
        uri: the tracking URI.
        retry: wait, as long as it takes, for a server that does not answer, here and in every idempotent call.

    Raises:
        UserError: the record cannot be reached, or is another MLflow's.
    """
    if not retry:
        check_record(uri)
    from mlflow import MlflowClient

    def client() -> "MlflowClient":
        with _sqlite_lock(uri):
            check_database(uri)
            if not uri.startswith("http"):
                check_schema(uri)
            client = MlflowClient(uri)
            client.search_experiments(max_results=1)
            return client

    try:
        return _Retrying(with_retries(client, is_retryable)) if retry else client()  # type: ignore[return-value]
    except UserError:
        raise
    except Exception as error:  # MLflow's own, or whatever its database or network library raises
        raise UserError(f"the record {uri} cannot be used: {first_line(error)}") from None


class _Retrying:
    """A client whose idempotent calls are retried for as long as the server does not answer."""

    def __init__(self, client: "MlflowClient") -> None:
        self.client = client

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.client, name)
        if name not in IDEMPOTENT:
            return method
        return lambda *args, **options: with_retries(lambda: method(*args, **options), is_retryable)


@contextmanager
def no_http_retries() -> Iterator[None]:
    """Let MLflow send every request once in this block, in this process; it reads the setting with each of them."""
    before = os.environ.get(HTTP_RETRIES)
    os.environ[HTTP_RETRIES] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[HTTP_RETRIES]
        else:
            os.environ[HTTP_RETRIES] = before


def is_retryable(error: Exception) -> bool:
    """Whether what MLflow raised is for want of a server, a database or a disk, and not for what was asked."""
    from mlflow.exceptions import MlflowException
    from requests import HTTPError

    if isinstance(error, MlflowException):
        return _at_fault(error.get_http_status_code())
    if isinstance(error, HTTPError) and error.response is not None:
        return _at_fault(error.response.status_code)
    return retry.is_retryable(error)


def first_line(error: Exception) -> str:
    """The first line of an error's message."""
    return str(error).strip().splitlines()[0]


def _at_fault(status: int) -> bool:
    return status >= 500 or status == 429


@contextmanager
def _sqlite_lock(uri: str) -> Iterator[None]:
    """Hold the lock beside an SQLite file; nothing for other records."""
    if not uri.startswith("sqlite:///"):
        yield
        return
    file = Path(uri.removeprefix("sqlite:///"))
    with file.with_name(f"{file.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
