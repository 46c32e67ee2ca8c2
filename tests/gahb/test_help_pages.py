"""The help: each command in a panel, with examples that are real command lines."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gahb_analysis.cli import app as analyze
from gahb_sweeps.cli import app as sweep
from gahb_sweeps.commands.options import settings_of
from typer.main import get_command

from gahb.cli import App
from gahb.planning.sweeps import trials_of

APPS = {"gahb-sweep": sweep, "gahb-analyze": analyze}
PANELS = {
    "gahb-sweep": ["Plan", "Train", "Look", "Keep house"],
    "gahb-analyze": ["Curves and scaling", "Pairs and samples", "Inside a denoiser", "Reports and imports"],
}


def commands() -> Iterator[tuple[str, str, Any]]:
    for name, app in APPS.items():
        app.prepare()
        group: Any = get_command(app)
        for word, command in group.commands.items():
            yield name, word, command


def test_every_command_stands_in_a_panel_with_examples() -> None:
    for name, word, command in commands():
        assert command.rich_help_panel in PANELS[name], word
        assert command.epilog and all(line.startswith(f"{name} {word}") for line in command.epilog.splitlines()), word


def test_usage_names_arguments_as_they_are_typed() -> None:
    usage = {
        word: command.get_usage(command.make_context(word, [], resilient_parsing=True))
        for _, word, command in commands()
    }
    for word, arguments in (("launch", "NAME [KEY=VALUE[,VALUE…] …]"), ("diff", "RUN1 RUN2"), ("basis", "RUN…")):
        assert usage[word] == f"Usage: {word} [OPTIONS] {arguments}"


def test_examples_are_command_lines(tmp_path: Path) -> None:
    (tmp_path / "my_sweep.py").write_text(
        "from gahb.grids import grid\nSMALL = {}\n"
        "def trials(overrides=None): return grid({'dataset': 'disks', 'resolution': 16, 'n_train': 1}, overrides)"
    )
    (tmp_path / "faces.toml").write_text("sweep = 'demo'")
    known = {(name, word): command for name, word, command in commands()}
    pages = [*known.values(), *map(get_command, APPS.values())]
    for line in (line for page in pages for line in page.epilog.splitlines()):
        name, *words = shlex.split(line, comments=True)
        word, *words = APPS[name].expanded(words)
        values = known[name, word].make_context(word, words).params
        if name == "gahb-sweep" and "overrides" in values:
            settings = settings_of(values["name"], values["overrides"])
            assert trials_of(values["name"], settings, small=values["small"]), line


def test_help_shows_panels_in_order_with_whole_sentences_and_examples_as_typed(capsys: Any) -> None:
    app = App("What it does.", ("x one --flag  # as typed",))
    meaning = "A sentence that is far longer than a line of eighty columns has room for, and is shown to its very end."

    def one() -> None: ...

    def three() -> None: ...

    one.__doc__ = three.__doc__ = meaning
    app.command(panel="Early", examples=())(one)
    app.command("two", panel="Late", examples=("x two",))(one)
    app.command(panel="Early", examples=())(three)
    app(["--help"], standalone_mode=False)
    shown = capsys.readouterr().out
    titles = [line for line in shown.splitlines() if line.endswith(":") and not line.startswith("Usage")]
    assert titles == ["Options:", "Early:", "Late:", "Examples:"]
    assert shown.index("  one") < shown.index("  three") < shown.index("Late:") < shown.index("  two")
    assert " ".join(shown.split()).count(meaning) == 3 and "\n  x one --flag  # as typed\n" in shown
