"""What the two commands share: options, how they end, where they talk and how they print tables."""

import functools
import inspect
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from gahb import help_pages, progress, shell_words
from gahb.errors import UserError
from gahb.text import printable, without_passwords
from gahb.typed import command_line

if TYPE_CHECKING:
    from gahb.tracking.record import Record

UsageError: type[typer.BadParameter] = typer.BadParameter.__bases__[0]
"""What typer raises for an unknown option or a missing argument; it has no public name in every version."""

Json = Annotated[bool, typer.Option("--json", help="Data on stdout as JSON.")]
RecordUri = Annotated[
    str | None, typer.Option("--record", help="MLflow tracking URI [MLFLOW_TRACKING_URI, else ./mlflow.db].")
]
Storage = Annotated[
    str | None,
    typer.Option("--storage", help="Folder for data and checkpoints [GAHB_STORAGE, else ./gahb-storage]."),
]
Address = Annotated[
    str | None,
    typer.Option(
        envvar="RAY_ADDRESS",
        show_envvar=False,
        help="Ray cluster: auto on one of its nodes, host:6379, or http://host:8265 from outside, as a job "
        "[RAY_ADDRESS, else this machine].",
    ),
]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Return when the job is submitted (with --address http://…).")]
Plugin = Annotated[
    list[Path] | None,
    typer.Option("--plugin", help="A Python file that brings data sets, architectures, sweeps, analyses."),
]

INTERRUPTED = 130
"""The exit status that typer gives to an interruption."""


class App(typer.Typer):
    """An application whose help is plain text, which prints no tracebacks of its own making, and each command of which
    takes --plugin. `prepare` is called before it reads the command line; `examples` are lines as they are typed."""

    def __init__(self, help: str, examples: Sequence[str] = (), prepare: Callable[[], None] = lambda: None) -> None:
        super().__init__(
            help=help,
            epilog="\n".join(examples),
            cls=help_pages.Commands,
            context_settings={"max_content_width": help_pages.WIDTH},
            rich_markup_mode=None,
            pretty_exceptions_enable=False,
        )
        self.prepare = prepare

    def command(  # type: ignore[override]
        self, name: str | None = None, *, panel: str, examples: Sequence[str]
    ) -> Callable[[Any], Any]:
        """A decorator that adds a command, under a heading of the help, with command lines that show its use."""
        add = super().command(name, cls=help_pages.Command, rich_help_panel=panel, epilog="\n".join(examples))

        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(values: dict[str, Any]) -> Any:
                del values["plugin"]  # for the help; `load_plugins` has read it
                return function(**values)

            add(command_of(call, [*parameters_of(function), parameter("plugin", Plugin, None)], function))
            return function

        return decorate

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.prepare()
        return super().__call__(*arguments, **options)

    def expanded(self, words: Sequence[str]) -> list[str]:
        """A command line with all that its words stand for."""
        return list(words)


def parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    """A command's parameter; one without a default (`inspect.Parameter.empty`) is an argument."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def parameters_of(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters that a command made of the function takes."""
    hints = get_type_hints(function, include_extras=True)
    own = inspect.signature(function).parameters.values()
    return [parameter(p.name, hints.get(p.name, str), p.default) for p in own]


def command_of(
    call: Callable[[dict[str, Any]], Any], parameters: Sequence[inspect.Parameter], like: Callable[..., Any]
) -> Callable[..., Any]:
    """A function that hands the values of its parameters, by name, to `call`, named and documented like another."""

    @functools.wraps(like)
    def command(**values: Any) -> Any:
        return call(values)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def load_plugins(words: Sequence[str]) -> list[str]:
    """Load the files that --plugin names on a command line, before anything else in it is read; the other words.

    Raises:
        UserError: see `registry.load_file`.
    """
    others, files = list[str](), list[str]()
    rest = iter(words)
    for word in rest:
        option, equals, file = word.partition("=")
        if option != "--plugin":
            others.append(word)
        elif file := file if equals else next(rest, ""):
            files.append(file)
        else:
            raise UserError("--plugin needs the path of a file")
    if files:
        import gahb.trial  # noqa: F401  # whose keys come first
        from gahb.registry import load_file

        for file in files:
            load_file(file)
    return others


def run(app: Callable[..., Any], name: str) -> None:
    """Run an application and exit: 0 when done, 2 with one line on stderr for what the user can put right, 130 when
    interrupted."""
    if shell_words.asked(name):
        return shell_words.answer(lambda: app(prog_name=name))
    progress.on = True
    try:
        if isinstance(app, App):
            sys.argv[1:] = app.expanded(sys.argv[1:])
        code = app(load_plugins(sys.argv[1:]), prog_name=name, standalone_mode=False)
    except UserError as error:
        _end(f"{name}: {error}", 2)
    except UsageError as error:
        _end(f"{name}: {error.format_message()} See {command_line(name, '--help')}", 2)
    except OSError as error:  # a full disk, a storage that does not answer
        _end(f"{name}: {error}", 2)
    except Exception as error:
        from gahb.tracking.client import is_retryable

        if not is_retryable(error):
            raise
        _end(f"{name}: the record does not answer: {error}", 2)
    if code == INTERRUPTED:
        _end(f"{name}: interrupted; the same command goes on from here", INTERRUPTED)
    sys.exit(code if isinstance(code, int) else 0)


def say(line: str) -> None:
    """A line of talk, on stderr."""
    progress.write(_shown(line))


def say_ui(record: "Record", sweep: str) -> None:
    """Say how to see a sweep's trials in the MLflow UI."""
    from gahb.storage.base import record_uri

    if record.uri.startswith("http"):
        return say(f"in MLflow: {record.uri.rstrip('/')}/{record.url(sweep)}")
    other = [] if record.uri == record_uri(None) else ["--record", record.uri]
    say(f"in MLflow: {command_line('gahb-sweep', 'ui', sweep, *other)}")


def print_line(line: str = "") -> None:
    """A line of data on stdout."""
    print(_shown(line))


def print_text(text: str) -> None:
    """Lines of data on stdout, as they are ended."""
    print(_shown(text, keep="\n\t"), end="")


def print_json(data: Any) -> None:
    """Data on stdout; a number that is not finite becomes null."""
    text = json.dumps(_plain(data), indent=2, ensure_ascii=False)
    print("".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text))


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Rows with common keys as aligned columns on stdout, numbers to the right."""
    if not rows:
        return
    header = list(rows[0])
    cells = [header] + [[_text(row.get(key)) for key in header] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(header))]
    right = [all(isinstance(row.get(key), int | float | None) for row in rows) for key in header]
    for line in cells:
        columns = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True))
        print_line("  ".join(columns).rstrip())


def _plain(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_plain(value) for value in data]
    if isinstance(data, str):
        return without_passwords(data)
    return None if isinstance(data, float) and not math.isfinite(data) else data


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if isinstance(value, float) else _shown(str(value))


def _shown(text: str, keep: str = "") -> str:
    """A text from wherever, harmless to a terminal, without passwords."""
    return printable(without_passwords(text), keep)


def _end(line: str, code: int) -> None:
    say(line)
    sys.exit(code)
