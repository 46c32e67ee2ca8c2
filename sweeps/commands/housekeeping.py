"""What keeps record and storage in order: `diff`, `gc`, `doctor`, `export`."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from gahb.cli import Address, Json, RecordUri, Storage, print_json, print_line, print_table, say
from gahb.housekeeping.formats import Format

from . import KEEP_HOUSE, app
from .options import RecordedSweep, RunName


@app.command(
    panel=KEEP_HOUSE, examples=("gahb-sweep diff 16x16-N4-A 16x16-N4-B", "gahb-sweep diff 1a2b3c4d 5e6f7a8b --json")
)
def diff(run1: RunName, run2: RunName, json: Json = False, record: RecordUri = None, storage: Storage = None) -> None:
    """Show what two runs differ in: settings, data, results, versions; nothing if they are equal."""
    from gahb.housekeeping.differences import differences
    from gahb.storage.base import record_uri, storage_here
    from gahb.tracking import lookup
    from gahb.tracking.record import Record

    root = storage_here(storage)
    book = Record(record_uri(record), root.url)
    found = [lookup.find(book, run) for run in (run1, run2)]
    rows = differences(book, root, *found)
    if json:
        return print_json({"runs": [run.run_id for run in found], "differences": rows})
    names = [f"{run.name} ({run.run_id[:8]})" for run in found]
    print_table([dict(zip(("part", "key", *names), map(_exact, row.values()), strict=True)) for row in rows])


@app.command(panel=KEEP_HOUSE, examples=("gahb-sweep gc", "gahb-sweep gc --delete"))
def gc(
    delete: Annotated[bool, typer.Option("--delete", help="Delete it, rather than only list it.")] = False,
    unknown: Annotated[
        bool,
        typer.Option(
            "--unknown",
            help="Also what no run of this record has; of several records that share a storage "
            "each would take what the others need.",
        ),
    ] = False,
    json: Json = False,
    record: RecordUri = None,
    storage: Storage = None,
) -> None:
    """List what may go from the storage: what deleted runs have left, what is kept twice, leases that nobody holds."""
    from gahb.errors import UserError
    from gahb.housekeeping import garbage
    from gahb.housekeeping.garbage import Reason
    from gahb.storage.base import record_uri, storage_here
    from gahb.tracking.record import Record

    root = storage_here(storage)
    book = Record(record_uri(record), root.url)
    if not book.exists:
        raise UserError(f"there is no record {book.uri}, so nothing says what in {root.uri} is needed; give --record")
    found = garbage.find(root, book)
    chosen = [item for item in found if unknown or item.reason != Reason.UNKNOWN]
    left = sum(item.bytes for item in found) - (total := sum(item.bytes for item in chosen))
    rows: list[dict[str, Any]] = [
        {"reason": item.reason, "name": item.name, "files": len(item.files), "bytes": item.bytes} for item in chosen
    ]
    if not json:
        print_table(_grouped(rows))
    freed = garbage.remove(chosen, root, book) if delete else None
    if json:
        return print_json({"items": rows, "bytes": total, "bytes_unknown": left, "bytes_freed": freed})
    if freed is None:
        say(f"{total:,} bytes may go; --delete deletes them" if rows else "nothing may go")
    else:
        say(f"{freed:,} of {total:,} bytes freed")
    if left:
        say(f"{left:,} bytes more are of no run in this record; if no other record uses {root.uri}, give --unknown")


def _exact(value: Any) -> Any:
    """A value as text that tells it from others that are close; of a long hash its beginning does."""
    if isinstance(value, float):
        return f"{value:.9g}"
    return f"{value[:16]}…" if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) else value


def _grouped(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, the largest first, of which those of leases and launches are one each, as they are many and small."""
    from gahb.housekeeping.garbage import Reason

    many = (Reason.LEASE, Reason.LAUNCH)
    shown = sorted((row for row in rows if row["reason"] not in many), key=lambda row: -row["bytes"])
    for reason in many:
        if same := [row for row in rows if row["reason"] == reason]:
            sums = {key: sum(row[key] for row in same) for key in ("files", "bytes")}
            shown.append({"reason": reason, "name": f"{len(same)} of them", **sums})
    return shown


@app.command(panel=KEEP_HOUSE, examples=("gahb-sweep doctor", "gahb-sweep doctor --address auto --json"))
def doctor(address: Address = None, json: Json = False, record: RecordUri = None, storage: Storage = None) -> None:
    """Check versions, GPU, compiler, Ray, record, storage, clock and images; status 1 if something fails."""
    from dataclasses import asdict

    from gahb.housekeeping.doctor import FAIL, examine
    from gahb.storage.base import record_uri, storage_here
    from gahb.tracking.record import Record

    root = storage_here(storage)
    findings = []
    for finding in examine(Record(record_uri(record), root.url), root, address, say):
        findings.append(finding)
        if not json:
            print_line(f"{finding.state:<6}{finding.what:<15}{finding.found}")
            if finding.cure:
                print_line(f"{'':<21}{finding.cure}")
    if json:
        print_json({"checks": [asdict(finding) for finding in findings]})
    if any(finding.state == FAIL for finding in findings):
        raise typer.Exit(1)


@app.command(
    panel=KEEP_HOUSE, examples=("gahb-sweep export demo", "gahb-sweep export demo --to tables --format parquet")
)
def export(
    sweep: RecordedSweep,
    to: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where the files go [SWEEP-export].", show_default=False)
    ] = None,
    format: Annotated[Format, typer.Option(help="Of the files.")] = Format.CSV,
    every: Annotated[
        bool, typer.Option("--all", help="Every analysis, rather than the newest of each kind of the same runs.")
    ] = False,
    json: Json = False,
    record: RecordUri = None,
    storage: Storage = None,
) -> None:
    """Write a sweep's trials, their histories and the tables of its analyses as tidy CSV or Parquet files."""
    from gahb.housekeeping import tables
    from gahb.storage.base import record_uri, storage_here
    from gahb.tracking.record import Record

    root = storage_here(storage)
    found = tables.tables(Record(record_uri(record), root.url), root, sweep, every=every)
    folder = to or Path(f"{sweep}-export")
    files = tables.write(found, folder, format)
    rows = [
        {"table": name, "rows": len(table), "columns": len(table.columns), "file": str(files[name])}
        for name, table in found.items()
    ]
    if json:
        return print_json({"folder": str(folder), "tables": rows})
    print_table(rows)
