"""Records of many finished trials, made in seconds: the run of one is made as launch and worker make it, and its rows
in MLflow's SQLite file are copied for the others.
"""

import contextlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gahb import hardware
from gahb.grids import parse_overrides
from gahb.planning.sweeps import sweep_trials
from gahb.storage.local import Folder
from gahb.tracking.record_writer import RecordWriter
from gahb.tracking.run import Kind, Tag, member_of
from gahb.trial import Trial

SWEEP = 100
"""Trials of a sweep; all belong to the sweep "all", too."""

EVALUATIONS = 30

Row = dict[str, Any]


def settings(seeds: range) -> list[str]:
    """Settings of the sweep `demo` for as many trials as there are seeds."""
    return ["n_train=1", "subset=A", f"seed={','.join(map(str, seeds))}"]


def trials(seeds: range) -> list[Trial]:
    """Those trials."""
    return sweep_trials("demo", parse_overrides(settings(seeds)))


def fill(folder: Path, count: int) -> None:
    """Make a record of so many finished trials, `record.db` in a folder. The i-th has seed i, the name "seed<i>" and,
    but for the first, i in 32 hexadecimal digits as its id."""
    storage, own = Folder(folder / "storage"), trials(range(count))
    data_hash = own[0].dataset.hash(storage)
    writer = RecordWriter(f"sqlite:///{folder / 'record.db'}", storage.url)

    def tags(index: int) -> dict[str, str]:
        return {
            Tag.KIND: Kind.TRIAL,
            Tag.SIGNATURE: own[index].signature(data_hash),
            Tag.DATA_HASH: data_hash,
            Tag.SUBSET: "A",
            Tag.TRIAL: json.dumps(own[index].flat()),
            Tag.LAUNCH: "0123456789ab",
            Tag.ATTEMPT: "host/1/01234567",
            Tag.STARTS: "0:1",
            Tag.SUBSET_HASH: "0123456789abcdef",
            Tag.PLANNED_SECONDS: "3",
            Tag.DEVICE: hardware.here()[0],
            Tag.SHARE: "1",
            **member_of("all"),
            **member_of(f"sweep{index // SWEEP}"),
        }

    params = {**own[0].flat(), "parameters": 1}
    dataset = ("c_alpha", data_hash, "c_alpha")
    first = writer.create("all", "seed0", params=params, tags=tags(0), dataset=dataset)
    _log(writer, first)
    writer.finish(first)

    changed: dict[str, tuple[str, Callable[[Row, int], None]]] = {
        "runs": ("run_uuid", _run),
        "tags": ("run_uuid", lambda row, i: row.update(_tag(row, i, tags(i)))),
        "params": ("run_uuid", lambda row, i: row.update(value=str(i)) if row["key"] == "seed" else None),
        "metrics": ("run_uuid", lambda row, i: None),
        "latest_metrics": ("run_uuid", lambda row, i: None),
        "inputs": ("destination_id", lambda row, i: row.update(input_uuid=f"{i:032x}")),
    }
    with contextlib.closing(sqlite3.connect(folder / "record.db")) as database, database:
        database.row_factory = sqlite3.Row
        for table, (column, change) in changed.items():
            _copy(database, table, column, first, count, change)


def _log(writer: RecordWriter, run_id: str) -> None:
    from mlflow.entities import Metric

    keys = ("images_seen", "loss", "train_psnr", "test_psnr", "psnr_gap")
    metrics = [Metric(key, 20.0, 1_700_000_000_000 + n, 1000 * n) for n in range(EVALUATIONS) for key in keys]
    last = metrics[-1]
    metrics.append(Metric("images_per_second", 1000.0, last.timestamp, last.step))
    writer.client.log_batch(run_id, metrics=metrics)


def _run(row: Row, index: int) -> None:
    """Make a run's row that of the trial of that index."""
    place = f"{row['artifact_uri'].rsplit('/', 2)[0]}/{row['run_uuid']}/artifacts"
    row.update(name=f"seed{index}", start_time=row["start_time"] + index, artifact_uri=place)


def _tag(row: Row, index: int, own: dict[str, str]) -> Row:
    """What is another in a tag of the trial of that index."""
    if row["key"] == "mlflow.runName":
        return {"value": f"seed{index}"}
    if row["key"] in member_of("sweep0"):
        return {"key": next(iter(member_of(f"sweep{index // SWEEP}")))}
    return {"value": own.get(row["key"], row["value"])}


def _copy(
    database: sqlite3.Connection, table: str, column: str, first: str, count: int, change: Callable[[Row, int], None]
) -> None:
    rows = [dict(row) for row in database.execute(f"SELECT * FROM {table} WHERE {column} = ?", [first])]

    def copies() -> Any:
        for index in range(1, count):
            for row in rows:
                copy = {**row, column: f"{index:032x}"}
                change(copy, index)
                yield tuple(copy.values())

    names, places = ", ".join(rows[0]), ", ".join("?" * len(rows[0]))
    database.executemany(f"INSERT INTO {table} ({names}) VALUES ({places})", copies())
