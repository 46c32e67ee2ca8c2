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
    "decoding": "Decoding of image files",
    "synthesis": "Synthesis of C^α images",
    "growth": "Growth",
}
"""Module → heading, in the order of RESULTS.md."""

FOLDER = Path(__file__).parent
HEAD = "| work | baseline | ratio | target | met | detail |\n|---|---|---|---|---|---|\n"
MARKS = {True: "yes", False: "**no**", None: "–"}


def section(name: str) -> str:
    """What a program found, as a part of RESULTS.md."""
    machine, rows = kept(name)
    lines = [
        f"| {r.work} | {r.baseline} | {r.ratio:.2f} | {r.target or '–'} | {MARKS[r.met]} | {r.detail} |\n" for r in rows
    ]
    return f"## {PROGRAMS[name]}\n\n{machine}\n\n{HEAD}{''.join(lines)}"


def kept(name: str) -> tuple[str, list[harness.Row]]:
    """The machine on which a program ran, and its rows."""
    content = json.loads(_file(name).read_text())
    return content["machine"], [harness.Row(**row) for row in content["rows"]]


def _file(name: str) -> Path:
    return FOLDER / "results" / f"{name}.json"


def main() -> None:
    for name in sys.argv[1:] or PROGRAMS:
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}", "--json", _file(name)], check=True)
    done = [name for name in PROGRAMS if _file(name).exists()]
    rows = [row for name in done for row in kept(name)[1]]
    short = [f"- {r.work}: {r.ratio:.2f}, and the target is {r.target}" for r in rows if r.met is False]
    head = ["# Benchmarks\n", "Written by `make bench`. What fell short:\n", *(short or ["- nothing"]), "\n"]
    (FOLDER / "RESULTS.md").write_text("\n".join(head) + "\n".join(section(name) for name in done))


main()
