"""The tables of a record's database, which versions of MLflow have in forms of their own: revisions, named by letters
and digits.

MLflow uses its own revision alone. It would refuse another in words that hold for an older one only, or, where whole
tables are missing, bring it up to date unasked, so that the MLflow of others can use it no more.
"""

import re
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from gahb.errors import UserError

REVISION = re.compile(r"""^(down_)?revision\b.*?=(.*)$""", re.MULTILINE)
"""A line of a migration of MLflow's that names its revision, or those that it comes after."""


def check_schema(uri: str) -> None:
    """Raise UserError if a database is of another revision than the MLflow that is installed uses. One that cannot be
    read is MLflow's to complain of."""
    found = _revision_of(uri)
    newest, known = revisions()
    if found and found != newest:
        installed = f"MLflow {version('mlflow')}"
        age, cure = (
            ("an older", f"after a backup, bring it up to date with: mlflow db upgrade {uri}")
            if found in known
            else ("a newer", "upgrade that with: pip install --upgrade 'mlflow<4'")
        )
        raise UserError(f"the record {uri} is from {age} version than {installed}, which is installed here; {cure}")


def revisions() -> tuple[str, set[str]]:
    """The newest revision that the installed MLflow knows, which it uses, and all of them. Reads its migrations as
    text, as to import them takes a second."""
    spec = find_spec("mlflow")
    assert spec is not None and spec.origin is not None
    known, superseded = set[str](), set[str]()
    for file in Path(spec.origin).parent.glob("store/db_migrations/versions/*.py"):
        for comes_after, names in REVISION.findall(file.read_text()):
            (superseded if comes_after else known).update(re.findall(r"""["'](\w+)["']""", names))
    (newest,) = known - superseded
    return newest, known


def _revision_of(uri: str) -> str | None:
    """The revision of a database; None where there is none yet."""
    from sqlalchemy import create_engine, text
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    try:
        with create_engine(uri, poolclass=NullPool).connect() as connection:
            return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    except (SQLAlchemyError, ImportError):  # of the database's driver
        return None
