"""Run the battery: `python -m benchmarks.gpu [PART …] [--out FOLDER]`; without a part, all. See docs/gpu.md.

Each part runs in a process of its own, as an error of CUDA spoils the process. Their rows are kept in
FOLDER/results/gpu, and FOLDER/GPU.md is written from all that are there. Without a GPU it is a dry run at tiny sizes.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PARTS = {
    "parity": ("The GPU computes what the CPU computes", 150),
    "graph": ("One CUDA graph a step", 60),
    "bits": ("The same bits again", 210),
    "memory": ("Memory", 120),
    "steps": ("Speed of training", 300),
    "sharing": ("Several processes on one GPU", 120),
    "sampling": ("Speed of sampling", 40),
    "jacobian": ("Speed of Jacobians", 80),
}
"""Part → heading, and the seconds after which no further check of it begins."""

GRACE = 60
"""Seconds that the last check of a part may take longer."""

HERE = Path(__file__).parents[1]
MARKS = {True: "yes", False: "**no**", None: "–"}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="Measure a GPU; see docs/gpu.md.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} [all]")
    parser.add_argument("--out", type=Path, help="where GPU.md goes [benchmarks; without a GPU a new folder]")
    arguments = parser.parse_args()
    if unknown := [part for part in arguments.parts if part not in PARTS]:
        parser.error(f"there is no part {unknown[0]}; there are {', '.join(PARTS)}")
    folder = arguments.out or default_folder()
    (folder / "results" / "gpu").mkdir(parents=True, exist_ok=True)
    failed = [part for part in arguments.parts or PARTS if not run(part, folder)]
    print(f"{folder / 'GPU.md'}: {'failed: ' + ', '.join(failed) if failed else 'nothing failed'}")
    return 1 if failed else 0


def default_folder() -> Path:
    import torch

    return HERE if torch.cuda.is_available() else Path(tempfile.mkdtemp(prefix="gpu-dry-run-"))


def run(part: str, folder: Path) -> bool:
    """Run a part and write what is known then: whether nothing failed."""
    seconds, file = PARTS[part][1], results(folder, part)
    file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.gpu.part", part, str(seconds), str(file.resolve())]
    process = subprocess.Popen(command, cwd=HERE.parent, start_new_session=True)
    ended = ""
    try:
        status = process.wait(seconds + GRACE)
        if status not in (0, 1):
            ended = f"ended with exit status {status}"
    except subprocess.TimeoutExpired:
        status, ended = 1, f"ended after {seconds + GRACE} s"
    finally:
        with contextlib.suppress(ProcessLookupError):  # it and what it started
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if ended:
            print(f"{part}: {ended}", flush=True)
            nothing = {"machine": "?", "date": "?", "rows": []}
            content: dict[str, Any] = json.loads(file.read_text()) if file.exists() else nothing
            content["rows"].append({"what": "the whole part", "found": ended, "asked": "", "met": False})
            file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        (folder / "GPU.md").write_text(report(folder))
    return status == 0


def results(folder: Path, part: str) -> Path:
    return folder / "results" / "gpu" / f"{part}.json"


def report(folder: Path) -> str:
    """GPU.md from the rows of all parts that have run, whenever that was."""
    found = {part: json.loads(file.read_text()) for part in PARTS if (file := results(folder, part)).exists()}
    rows = [(part, row) for part, content in found.items() for row in content["rows"]]
    failed = [f"- {part}: {row['what']}: {row['found']}\n" for part, row in rows if row["met"] is False]
    head = ["# On a GPU\n", "Written by `make gpu`; docs/gpu.md says what each part is. What failed:\n"]
    sections = [section(PARTS[part][0], content) for part, content in found.items()]
    return "\n".join([*head, "".join(failed) or "- nothing\n", *sections])


def section(heading: str, content: dict[str, Any]) -> str:
    lines = [f"| {row['what']} | {row['found']} | {row['asked']} | {MARKS[row['met']]} |\n" for row in content["rows"]]
    head = "| what | found | asked | met |\n|---|---|---|---|\n"
    return f"## {heading}\n\n{content['machine']}; {content['date']}\n\n{head}{''.join(lines)}"


if __name__ == "__main__":
    sys.exit(main())
