"""LSUN as distributed: an LMDB of image files by key (`data.mdb` in a folder such as `bedroom_train_lmdb`).

Needs the package lmdb, which `pip install 'gahb[lsun]'` brings. It maps the file and believes what is in it, so a
damaged one can end the process: the database is read in child processes alone. That is a protection from crashes, none
from code that a file might slip into the library: a child has all rights of its user.

The database is opened for each reading, because a process can have it open only once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gahb.data.processes import processes
from gahb.errors import UserError

FILE = "data.mdb"

MOST_KEYS = 20_000_000
"""Keys of the largest database; LSUN's largest, of people, has 18,890,816."""

MOST_KEY_BYTES = 1 << 30
"""Bytes of all keys together, which the file cannot have more of than it has itself."""


def keys(folder: Path) -> list[str]:
    """The keys of all images, sorted, from a process of its own.

    Raises:
        UserError: lmdb is not installed, the file is no LMDB, or ends the process that reads it.
    """
    _lmdb(folder)
    with processes(_keys, 1, f"dataset={folder}: {FILE}", apart=True) as call:
        found: list[str] = call(folder)
        return found


def _keys(folder: Path) -> list[str]:
    left = min((folder / FILE).stat().st_size, MOST_KEY_BYTES)
    found: list[str] = []
    with _transaction(folder) as transaction:
        for key in transaction.cursor().iternext(values=False):
            left -= len(key)
            if left < 0 or len(found) == MOST_KEYS:
                raise UserError(f"dataset={folder}: {FILE} has more keys than can be; it is damaged or hostile")
            found.append(bytes(key).decode("latin-1"))
    return found


def read(folder: Path, key: str, most: int) -> bytes:
    """The image file under a key, of at most so many bytes. To be called in a process that may be ended by it."""
    with _transaction(folder) as transaction:
        value = transaction.get(key.encode("latin-1"))
        if value is None or len(value) > most:
            raise UserError(f"dataset={folder}: {key} is missing or larger than {most >> 20} MiB; remove it")
        return bytes(value)


def _lmdb(folder: Path) -> Any:
    try:
        import lmdb
    except ImportError:
        raise UserError(f"dataset={folder}: to read an LMDB, pip install 'gahb[lsun]'") from None
    return lmdb


@contextmanager
def _transaction(folder: Path) -> Iterator[Any]:
    lmdb = _lmdb(folder)
    try:
        with (
            lmdb.open(str(folder), readonly=True, lock=False, readahead=False) as database,
            database.begin(buffers=True) as transaction,
        ):
            whole = (database.info()["last_pgno"] + 1) * database.stat()["psize"]
            if (folder / FILE).stat().st_size < whole:  # a page that is not there would end the process
                raise UserError(f"dataset={folder}: {FILE} is cut off; it should have {whole} bytes")
            yield transaction
    except UserError:
        raise
    except Exception as error:  # of many kinds, as the file is damaged
        raise UserError(f"dataset={folder}: {FILE} cannot be read ({error})") from None
