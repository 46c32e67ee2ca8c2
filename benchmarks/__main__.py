"""Run benchmarks, each in a process of its own, keep their rows in `results/` and write RESULTS.md from all that are
there: `python -m benchmarks [NAME …]`; without a name, all.
"""

import json
import subprocess
import sys
from pathlib import Path

from benchmarks import harness

PROGRAMS: dict[str, str] = {
    "training": "Training",
    "precision": "The fast setting and the science",
    "many": "Many small models at once",
    "checkpointing": "Checkpointing",
    "overheads": "Overheads",
    "sampling": "Sampling",
    "jacobian": "Jacobians",
    "duplicates": "Near-duplicates",
    "nearest": "Closest images",
    "synthesis": "Synthesis of C^α images",
    "growth": "Growth",
}
"""Module → heading, in the order of RESULTS.md."""

FOLDER = Path(__file__).parent
HEAD = "| work | baseline | ratio | target | met | detail |\n|---|---|---|---|---|---|\n"
MARKS = {True: "yes", False: "**no**", None: "–"}


def section(name: str) -> str:
    """What a program found, as a part of RESULTS.md."""
    kept = json.loads(_file(name).read_text())
    lines = [
        f"| {r.work} | {r.baseline} | {r.ratio:.2f} | {r.target or '–'} | {MARKS[r.met]} | {r.detail} |\n"
        for r in (harness.Row(**row) for row in kept["rows"])
    ]
    return f"## {PROGRAMS[name]}\n\n{kept['machine']}\n\n{HEAD}{''.join(lines)}"


def _file(name: str) -> Path:
    return FOLDER / "results" / f"{name}.json"


def main() -> None:
    for name in sys.argv[1:] or PROGRAMS:
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}", "--json", _file(name)], check=True)
    found = [section(name) for name in PROGRAMS if _file(name).exists()]
    (FOLDER / "RESULTS.md").write_text("# Benchmarks\n\nWritten by `make bench`.\n\n" + "\n".join(found))


main()
