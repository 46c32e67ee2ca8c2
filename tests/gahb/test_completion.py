"""Shell completion, as typer asks for it and as bash shows it."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from typer.main import get_command

from tests.helpers import Place, Terminal, new_trial


def words(line: str, name: str = "gahb_sweeps") -> list[str]:
    """What may stand in place of the last word of a command line."""
    module: Any = importlib.import_module(f"{name}.cli")
    module.app.prepare()
    *before, incomplete = line.split(" ")
    group: Any = get_command(module.app)
    command = group.commands[before[0]]
    context = command.make_context(before[0], before[1:], resilient_parsing=True)
    parameter = next(p for p in command.params if p.nargs != 1 or not context.params[p.name])
    return [item.value for item in parameter.shell_complete(context, incomplete)]


def test_sweeps_settings_and_values() -> None:
    assert words("plan tr") == ["transition"]
    assert {"resolution=", "n_train=", "architecture=", "schedule="} <= set(words("launch transition "))
    assert "n_train=" not in words("launch transition n_train=1 ")
    assert words("launch transition schedule=") == [f"schedule={w}" for w in ("halving", "cosine", "constant")]
    assert words("launch transition architecture=bf") == ["architecture=bf_cnn"]
    assert words("launch demo comp") == ["compile=", "compile=true", "compile=false"], "told from all others"
    assert words("plan resolution_scaling n_train=1,10") == [f"n_train=1,1{'0' * n}" for n in range(1, 6)]
    assert words("data di") == ["disks"]


def test_runs_and_sweeps_of_the_record(finished: Place) -> None:
    flags = " ".join(finished.flags)
    assert "tiny" in words(f"status {flags} ")
    assert words(f"show {flags} 16x16-N64") == ["16x16-N64-A", "16x16-N64-B"]
    run_id = finished.record.runs("trial")[0].run_id
    assert words(f"show {flags} {run_id[:6]}") == [run_id]
    assert "tiny" in words(f"stop {flags} ")
    assert words(f"scaling {flags} t", "gahb_analysis") == ["tiny"]


def test_a_name_that_several_sweeps_have_is_offered_with_each(place: Place) -> None:
    for sweep in ("faces", "rooms"):
        new_trial(place, "16x16-N1-A", "1" * 12, sweep=sweep)
    offered = words(f"show {' '.join(place.flags)} ")
    assert offered == ["faces/16x16-N1-A", "rooms/16x16-N1-A"]


def test_a_record_that_cannot_be_read_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "r.db").write_text("this is no database")
    ended = asked("gahb-sweep show --record sqlite:///r.db ")
    assert (ended.stdout.strip(), ended.stderr, ended.returncode) == ("", "", 0)


def asked(line: str, check: str = "") -> subprocess.CompletedProcess[str]:
    """The answer to bash, whose words end at =, and a check of the process after it."""
    code = f"from gahb_sweeps.cli import main; main()\n{check}"
    asked = {"COMP_WORDS": line.replace("=", " = ").replace(" ", "\n"), "_GAHB_SWEEP_COMPLETE": "complete_bash"}
    environment = {**os.environ, **asked, "COMP_CWORD": str(asked["COMP_WORDS"].count("\n"))}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


def test_words_that_the_code_knows_import_nothing_heavy() -> None:
    heavy = "import sys; print({'torch', 'ray', 'mlflow', 'pandas', 'rich'} & sys.modules.keys())"
    ended = asked("gahb-sweep launch demo schedule=c", heavy)
    assert ended.stdout.splitlines() == ["cosine", "constant", "set()"]


def test_bash(tmp_path: Path) -> None:
    for name, package in (("gahb-sweep", "gahb_sweeps"), ("gahb-analyze", "gahb_analysis")):
        (tmp_path / name).write_text(f"#!{sys.executable}\nfrom {package}.cli import main\nmain()\n")
        (tmp_path / name).chmod(0o755)
    with Terminal(["bash", "--norc", "-i"], PATH=f"{tmp_path}:{os.environ['PATH']}", PS1="> ") as shell:
        shell.type('eval "$(gahb-sweep --show-completion)"; echo rea"dy"\n')
        shell.wait_for("ready")
        shell.type("gahb-sweep laun\ttransi\tschedule=cos\t")
        shell.wait_for("launch transition schedule=cosine ")
