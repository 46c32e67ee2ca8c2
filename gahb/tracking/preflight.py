"""Whether there is anything at the address of a record or a cluster, asked before a library is, which would try for
minutes or take a stranger's database for its own."""

import contextlib
import socket
import sqlite3
from pathlib import Path
from urllib.parse import urlsplit

from gahb.errors import UserError

PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
"""What a record's address may begin with, besides sqlite, and where the server listens."""

SECONDS = 10.0
"""How long an answer may take."""


def check_record(uri: str) -> None:
    """Raise UserError if no record can be at an MLflow tracking URI."""
    try:
        if uri.startswith("sqlite:///"):
            return _check_sqlite(Path(uri.removeprefix("sqlite:///")))
        parts = urlsplit(uri)
        scheme, host = parts.scheme.partition("+")[0], parts.hostname
        if scheme not in PORTS or (not host and scheme.startswith("http")):
            raise ValueError("give sqlite:///FILE, http://HOST:PORT or postgresql://USER@HOST/DATABASE")
        if host and not _through_proxy(scheme, host):
            check_listening(host, parts.port or PORTS[scheme])
    except (OSError, ValueError) as error:
        raise UserError(f"the record {uri} cannot be used: {error}") from None


def _through_proxy(scheme: str, host: str) -> bool:
    if not scheme.startswith("http"):
        return False
    from urllib.request import getproxies, proxy_bypass

    return scheme in getproxies() and not proxy_bypass(host)


def check_listening(host: str, port: int) -> None:
    """Raise OSError if nothing listens at a port."""
    socket.create_connection((host, port), timeout=SECONDS).close()


def _check_sqlite(file: Path) -> None:
    if not file.parent.is_dir():
        raise ValueError(f"no folder {file.parent}")
    if not file.exists() and file.name:
        return
    if not file.is_file():
        raise ValueError(f"{file} is no file")


def check_database(uri: str) -> None:
    """Raise UserError if a record in SQLite is none. To be called while nobody else makes one there."""
    file = Path(uri.removeprefix("sqlite:///"))
    if not uri.startswith("sqlite:///") or not file.exists():
        return
    address = f"{file.absolute().as_uri()}?mode=ro"
    try:
        with contextlib.closing(sqlite3.connect(address, uri=True, timeout=60)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error as error:
        raise UserError(f"the record {uri} cannot be used: {error}") from None
    if tables and "alembic_version" not in tables:
        raise UserError(f"the record {uri} cannot be used: it is a database of something else")
