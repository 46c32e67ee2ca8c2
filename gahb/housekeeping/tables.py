"""A sweep as tidy tables: its trials, their histories, and what its analyses found.

    trials            a row a trial: ids, settings, the last of each metric
    histories         a row an evaluation: run_id, name, images_seen, metrics
    analyses          a row an analysis: run_id, kind, name, settings as JSON, the ids of the runs that it is of
    analysis_metrics  a row a number that an analysis found: run_id, kind, name, metric, value
    <kind>, <kind>_<table>   the tables of the analyses of a kind, below each other; analysis_run_id says whose a row is

As files each is written whole or not at all.
"""

import io
import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gahb.errors import UserError
from gahb.execution.analysis import no_formulas
from gahb.housekeeping.formats import Format
from gahb.planning.plan import states_of
from gahb.storage.base import Storage
from gahb.storage.local import content_of
from gahb.tracking import lookup
from gahb.tracking.record import Record
from gahb.tracking.run import Run, Tag

if TYPE_CHECKING:
    import pandas as pd

LARGEST = 1 << 30
"""Bytes of the largest table of an analysis that is read."""

TAGS = {"data_hash": Tag.DATA_HASH, "subset_hash": Tag.SUBSET_HASH, "device": Tag.DEVICE, "share": Tag.SHARE}


def tables(record: Record, storage: Storage, sweep: str, *, every: bool = False) -> dict[str, "pd.DataFrame"]:
    """Name → table, of a sweep in the record.

    Args:
        record: the record.
        storage: beside it.
        sweep: the sweep's name.
        every: take every analysis, rather than those that are `newest`.

    Raises:
        UserError: no such sweep, or a record or artifacts that cannot be read.
    """
    runs, analyses = lookup.sweep_trials(record, sweep), lookup.analyses(record, sweep)
    if not every:
        analyses = newest(analyses)
    return {
        "trials": trials_table(runs, storage),
        "histories": histories_table(record, runs),
        "analyses": analyses_table(analyses),
        "analysis_metrics": analysis_metrics_table(analyses),
        **analysis_tables(record, analyses),
    }


def newest(analyses: Sequence[Run]) -> list[Run]:
    """The analyses, the oldest first, without those after which one of the same kind was asked that is of the same
    runs, or of more."""
    kept = list[Run]()
    for run in reversed(analyses):
        if not any(run.kind == later.kind and run.links <= later.links for later in kept):
            kept.insert(0, run)
    return kept


def trials_table(runs: Sequence[Run], storage: Storage) -> "pd.DataFrame":
    """A row a trial, of any state: `run_id`, `name`, `signature`, `sweeps`, `state`, `reason`, every setting, the last
    of every metric that is not also a setting, TAGS, and `images_reused`."""
    states = states_of(runs, storage)
    return _table(
        {
            "run_id": run.run_id,
            "name": run.name,
            "signature": run.signature,
            "sweeps": "/".join(run.sweeps),
            "state": states[run.run_id],
            "reason": run.reason,
            **run.flat,
            **{key: value for key, value in run.metrics.items() if key not in run.flat},
            **{key: run.tags.get(tag) for key, tag in TAGS.items()},
            "images_reused": run.images_reused,
        }
        for run in runs
    )


def histories_table(record: Record, runs: Sequence[Run]) -> "pd.DataFrame":
    """A row an evaluation of a trial: `run_id`, `name`, `images_seen`, and the metrics that were logged then."""
    rows = []
    for run in runs:
        of_run = defaultdict[int, dict[str, float]](dict)
        for key in run.metrics.keys() - {"images_seen"}:
            for step, value in record.history(run.run_id, key):
                of_run[step][key] = value
        rows += [
            {"run_id": run.run_id, "name": run.name, "images_seen": step, **dict(sorted(of_run[step].items()))}
            for step in sorted(of_run)
        ]
    return _table(rows, ("run_id", "name", "images_seen"))


def analyses_table(analyses: Sequence[Run]) -> "pd.DataFrame":
    """A row a finished analysis: `run_id`, `kind`, `name`, `settings` as JSON, and `of`, the ids of the runs that it
    was computed from, with blanks between them."""
    rows = [
        {
            "run_id": run.run_id,
            "kind": run.kind,
            "name": run.name,
            "settings": json.dumps(run.params, ensure_ascii=False),
            "of": " ".join(sorted(run.links)),
        }
        for run in analyses
    ]
    return _table(rows, ("run_id", "kind", "name", "settings", "of"))


def analysis_metrics_table(analyses: Sequence[Run]) -> "pd.DataFrame":
    """A row a number: `run_id`, `kind` and `name` of the analysis, `metric` and `value`."""
    rows = [
        {"run_id": run.run_id, "kind": run.kind, "name": run.name, "metric": key, "value": value}
        for run in analyses
        for key, value in sorted(run.metrics.items())
    ]
    return _table(rows, ("run_id", "kind", "name", "metric", "value"))


def analysis_tables(record: Record, analyses: Sequence[Run]) -> dict[str, "pd.DataFrame"]:
    """Name → the tables that the analyses of a kind have left, below each other, with `analysis_run_id` before them.
    The name is the kind's, with the table's if that is another.

    Raises:
        UserError: a table that cannot be read.
    """
    import pandas as pd

    found = defaultdict[str, list[pd.DataFrame]](list)
    for run in analyses:
        for file in record.files(run.run_id):
            if named := re.fullmatch(r"([\w-]+)\.csv", file):
                name = run.kind if named[1] == run.kind else f"{run.kind}_{named[1]}"
                table = _read(record.artifacts(run.run_id, file))
                table.insert(0, "analysis_run_id", run.run_id)
                found[name].append(table)
    return {name: _plain(pd.concat(parts, ignore_index=True)) for name, parts in sorted(found.items())}


def write(tables: Mapping[str, "pd.DataFrame"], folder: Path, format: Format) -> dict[str, Path]:
    """Write tables into a folder, `<name>.csv` or `<name>.parquet`, in place of files of the same names.

    Returns:
        name → file.

    Raises:
        UserError: the folder is a file.
        OSError: it cannot be written to; then no table is.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; name a folder with --to")
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / f"{name}.{format}" for name in tables}
    with tempfile.TemporaryDirectory(prefix=".", dir=folder) as making:
        for name, table in tables.items():
            new = Path(making) / files[name].name
            if format == Format.CSV:
                no_formulas(table).to_csv(new, index=False)
            else:
                table.to_parquet(new, index=False)
        for file in files.values():
            (Path(making) / file.name).replace(file)
    return files


def _read(file: Path) -> "pd.DataFrame":
    import pandas as pd

    try:
        return pd.read_csv(io.BytesIO(content_of(file, LARGEST)))
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read as a table: {error}") from None


def _table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str] = ()) -> "pd.DataFrame":
    """Rows, some of which may lack a key, as a table; with these columns if there are none."""
    import pandas as pd

    rows = list(rows)
    return _plain(pd.DataFrame(rows) if rows else pd.DataFrame(columns=list(columns)))


def _plain(table: "pd.DataFrame") -> "pd.DataFrame":
    """The table with one type a column, whole numbers whole although some are missing, and text where types differ."""
    table = table.convert_dtypes()
    mixed = table.select_dtypes("object").columns
    return table.astype(dict.fromkeys(mixed, "string"))
