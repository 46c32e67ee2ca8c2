"""Run every benchmark, each in a process of its own, and write RESULTS.md: `python -m benchmarks [NAME …]`."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import harness

PROGRAMS: dict[str, str] = {
    "training": "Training",
    "checkpointing": "Checkpointing",
}
"""Module → heading, in the order of RESULTS.md."""

RESULTS = Path(__file__).with_name("RESULTS.md")


def table(rows: list[harness.Row]) -> str:
    head = "| work | baseline | ratio | target | met | detail |\n|---|---|---|---|---|---|\n"
    marks = {True: "yes", False: "**no**", None: "–"}
    return head + "".join(
        f"| {r.work} | {r.baseline} | {r.ratio:.2f} | {r.target or '–'} | {marks[r.met]} | {r.detail} |\n" for r in rows
    )


def main() -> None:
    chosen = sys.argv[1:] or list(PROGRAMS)
    parts = [f"# Benchmarks\n\nWritten by `make bench` on {harness.machine()}.\n"]
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen:
            file = Path(folder) / f"{name}.json"
            subprocess.run([sys.executable, "-m", f"benchmarks.{name}", "--json", file], check=True)
            rows = [harness.Row(**row) for row in json.loads(file.read_text())]
            parts.append(f"## {PROGRAMS[name]}\n\n{table(rows)}")
    if chosen == list(PROGRAMS):
        RESULTS.write_text("\n".join(parts))


main()
