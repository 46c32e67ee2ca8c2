"""How `--help` looks: the commands in panels, and below them examples, a line each, as they are typed."""

from typing import Any

from typer.core import TyperCommand, TyperGroup

WIDTH = 110
"""Columns of a page, where the terminal has as many."""


def arguments_of(command: Any) -> list[str]:
    """The arguments of a command as its usage names them: RUN, [KEY=VALUE …]."""
    return [p.metavar or p.name.upper() for p in command.params if p.param_type_name == "argument"]


class Command(TyperCommand):
    """A command whose epilog is its examples."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [self.options_metavar or "", *arguments_of(self)]

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        _write_examples(self.epilog, formatter)


class Commands(TyperGroup):
    """Commands in panels, which stand in the order in which each first has a command; the epilog is examples."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        panels: dict[str, list[Any]] = {}
        for command in self.commands.values():
            panels.setdefault(command.rich_help_panel, []).append(command)  # type: ignore[attr-defined]
        width = max(map(len, self.commands))
        for panel, commands in panels.items():
            with formatter.section(panel):
                formatter.write_dl([(c.name.ljust(width), (c.help or "").partition("\n")[0]) for c in commands])

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        _write_examples(self.epilog, formatter)


def _write_examples(text: str | None, formatter: Any) -> None:
    if text:
        with formatter.section("Examples"):
            for line in text.splitlines():
                formatter.write(f"{'':{formatter.current_indent}}{line}\n")
