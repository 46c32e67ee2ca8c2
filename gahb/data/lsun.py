"""LSUN as distributed: an LMDB of image files by key (`data.mdb` in a folder such as `bedroom_train_lmdb`).

Needs the package lmdb, which `pip install 'gahb[lsun]'` brings. The database is opened for each reading, because a
process can have it open only once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gahb.errors import UserError

FILE = "data.mdb"


def keys(folder: Path) -> list[str]:
    """The keys of all images, sorted.

    Raises:
        UserError: lmdb is not installed, or the file is no LMDB.
    """
    with _transaction(folder) as transaction:
        return [key.decode("latin-1") for key in transaction.cursor().iternext(values=False)]


def read(folder: Path, key: str) -> bytes:
    """The image file under a key."""
    with _transaction(folder) as transaction:
        return bytes(transaction.get(key.encode("latin-1")))


@contextmanager
def _transaction(folder: Path) -> Iterator[Any]:
    try:
        import lmdb
    except ImportError:
        raise UserError(f"dataset={folder}: to read an LMDB, pip install 'gahb[lsun]'") from None
    try:
        with (
            lmdb.open(str(folder), readonly=True, lock=False, readahead=False) as database,
            database.begin() as transaction,
        ):
            whole = (database.info()["last_pgno"] + 1) * database.stat()["psize"]
            if (folder / FILE).stat().st_size < whole:  # a page that is not there would end the process
                raise UserError(f"dataset={folder}: {FILE} is cut off; it should have {whole} bytes")
            yield transaction
    except lmdb.Error as error:
        raise UserError(f"dataset={folder}: {FILE} cannot be read ({error})") from None
