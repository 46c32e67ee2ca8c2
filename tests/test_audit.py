"""`make audit` says what it found, or plainly that nothing was audited; the lock has what was tested."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def audit(binaries: Path) -> subprocess.CompletedProcess[str]:
    """`make audit` with the programs of a folder, and a proxy at which nobody listens."""
    make = ["make", "--no-print-directory", "-s", "-o", ".venv/installed", f"BIN={binaries}", "audit"]
    dead = {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    around = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(make, cwd=ROOT, env={**around, **dead}, capture_output=True, text=True)


def pip_audit(folder: Path, script: str) -> Path:
    (folder / "pip-audit").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "pip-audit").chmod(0o755)
    return folder


def test_without_an_answer_it_says_that_nothing_was_audited() -> None:
    ended = audit(Path(sys.executable).parent)
    line, *rest = ended.stderr.splitlines()
    assert line == "audit: PyPI and OSV do not answer; nothing was audited" and ended.returncode
    assert ended.stdout == "" and all(more.startswith("make:") for more in rest)


def test_findings_are_shown_and_fail(tmp_path: Path) -> None:
    ended = audit(pip_audit(tmp_path, "echo 'evil 1.0 CVE-1'; echo traceback >&2; exit 1"))
    assert ended.returncode and ended.stdout == "evil 1.0 CVE-1\n" and "traceback" not in ended.stderr


def test_the_second_source_is_asked_if_the_first_does_not_answer(tmp_path: Path) -> None:
    ended = audit(pip_audit(tmp_path, 'case "$*" in *pypi*) exit 1 ;; esac'))
    assert ended.returncode == 0 and ended.stdout == "audit: osv knows no vulnerability of requirements.lock\n"


def test_the_lock_pins_every_dependency_and_tells_nothing_of_the_machine() -> None:
    head, *lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert re.fullmatch(r"# What was tested, on Python 3\.\d+\.\d+ \w+ \w+", head)
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(name for extra in project["optional-dependencies"].values() for name in extra),
    ]
    names = {re.split(r"[^\w.-]", line)[0].lower().replace("_", "-") for line in wanted}
    locked = {line.partition("==")[0].lower().replace("_", "-") for line in lines}
    assert names - {"gahb", "setuptools"} <= locked
