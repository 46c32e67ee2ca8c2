import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gahb.errors import UserError
from gahb.tracking.schema import check_schema, revisions
from tests.helpers import Ended, Place

COMMANDS = (
    "gahb-sweep status",
    "gahb-sweep show 16x16-N1-A",
    "gahb-sweep plan demo",
    "gahb-sweep launch demo",
    "gahb-sweep search demo --gap 1",
    "gahb-sweep retry tiny",
    "gahb-sweep stop tiny",
    "gahb-analyze scaling tiny",
    "gahb-analyze pair 16x16-N1-A 16x16-N1-B",
)


def revision(place: Place) -> str:
    with contextlib.closing(sqlite3.connect(place.folder / "record.db")) as database:
        (found,) = database.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(found)


def test_what_mlflow_makes_is_of_the_newest_revision(finished: Place) -> None:
    newest, known = revisions()
    assert revision(finished) == newest and newest in known and len(known) > 50
    check_schema(finished.record.uri)


@pytest.mark.parametrize(
    ("found", "what", "cure"),
    [("f5a4f2784254", "older", "mlflow db upgrade {uri}"), ("0123456789ab", "newer", "pip install --upgrade")],
)
def test_every_command_ends_in_one_line_at_another_mlflow_s_record(
    copied: Place, command: Callable[..., Ended], found: str, what: str, cure: str
) -> None:
    copied.execute("UPDATE alembic_version SET version_num = ?", found)
    for words in COMMANDS:
        ended = command(*words.split(), *copied.flags)
        (line,) = ended.err.splitlines()
        assert ended.code == 2 and not ended.out and f"{what} version than MLflow" in line, words
        assert cure.format(uri=copied.record.uri) in line
    assert revision(copied) == found, "nobody has changed it"


@pytest.mark.slow
def test_an_older_record_is_brought_up_to_date_by_the_command_that_the_line_names(copied: Place) -> None:
    from alembic import command
    from mlflow.store.db.utils import _get_alembic_config

    command.downgrade(_get_alembic_config(copied.record.uri), "-3")
    with pytest.raises(UserError, match="mlflow db upgrade"):
        copied.record.runs()
    mlflow = Path(sys.executable).with_name("mlflow")
    subprocess.run([mlflow, "db", "upgrade", copied.record.uri], check=True, capture_output=True)
    assert len(copied.record.runs("trial")) == 4
