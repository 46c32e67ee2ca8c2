from collections.abc import Callable
from pathlib import Path

import pytest
from gahb_sweeps.cli import app
from gahb_sweeps.commands.launch_file import expanded

from gahb.tracking import lookup
from tests.helpers import TINY, Ended, Place

Command = Callable[..., Ended]
DOCS = Path(__file__).parents[2] / "docs"
EXAMPLE = DOCS / "launch.toml"
FILE = """
sweep = "demo"
as = "mine"
small = true
report = false
gpus_per_trial = 0.5
[settings]
n_train = [1, 10]
compile = false
images = 2e3
"""


def words(*line: str) -> list[str]:
    return expanded(line, app.options)


def test_a_file_is_the_command_line_that_it_stands_for(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(FILE)
    file = str(tmp_path / "x.toml")
    settings = ["n_train=1,10", "compile=false", "images=2000.0"]
    assert words("launch", file) == ["launch", "--as=mine", "--small", "--gpus-per-trial=0.5", "demo", *settings]
    assert words("plan", file, "--json", "n_train=3") == [
        "plan", "--as=mine", "--small", "demo", "--json", "n_train=3", *settings[1:],
    ], "a plan has GPUs of its own; what is typed goes first"  # fmt: skip
    assert words("launch", "--as", "other", file)[1:6] == [
        "--as=mine",
        "--small",
        "--gpus-per-trial=0.5",
        "--as",
        "other",
    ]
    for others in (["status"], ["launch", "demo", "n_train=1"], ["show", file]):
        assert words(*others) == others


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sweep = ", "cannot be read as a launch"),
        ("as = 'x'", "needs a line sweep"),
        ("sweep = 'demo'\nsettings = 3", "needs a line sweep"),
        ("sweep = 'demo'\nreprot = true", "unknown key 'reprot'; did you mean 'report'?"),
        ("sweep = 'demo'\njson = true", "unknown key 'json'"),
        ("sweep = 'demo'\nsmall = 1", "must be true or false"),
        ("sweep = 'demo'\nas = true", "must be a value"),
        ("sweep = 'demo'\n[settings]\nimages = {a = 1}", "must be text, a number"),
        ("sweep = 'demo'\n[settings]\nn_trian = 3", "unknown key 'n_trian'; did you mean 'n_train'?"),
        ("sweep = 'demo'\ncheckpoint_seconds = 'soon'", "Invalid value for '--checkpoint-seconds'"),
        ("sweep = 'dmeo'", "did you mean 'demo'?"),
    ],
)
def test_a_mistake_in_a_file_is_one_line(command: Command, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.toml").write_text(text)
    ended = command("gahb-sweep", "launch", "x.toml")
    assert ended.code == 2 and message in ended.err and len(ended.err.splitlines()) == 1
    assert not (tmp_path / "mlflow.db").exists()


def test_the_example_runs_with_what_is_typed_in_place_of_its_own(
    ray_here: None, command: Command, place: Place
) -> None:
    shown = EXAMPLE.read_text().partition("\n\n")[2]
    assert f"```toml\n{shown}```" in (DOCS / "housekeeping.md").read_text()
    assert len(command("gahb-sweep", "plan", str(EXAMPLE), "--json").json["trials"]) == 6
    tiny = [f"{key}={value}" for key, value in {**TINY, "images": 320}.items() if key not in ("dataset", "resolution")]
    ended = command("gahb-sweep", "launch", str(EXAMPLE), *tiny, "n_train=2", "--json", *place.flags)
    assert ended.code == 0, ended.err
    assert {run.params["n_train"] for run in lookup.finished_trials(place.record, "first")} == {"2"}
