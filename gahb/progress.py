"""What moves on a terminal: bars where a person waits, a table that is drawn again and again, lines that stay above.

All of it is on stderr, and only where a command has asked for it (`on`) and stderr is a terminal that can draw; the
table also where a notebook shows it (`page`). Elsewhere lines are all there is. One thing moves at a time: within it,
nothing else begins. NO_COLOR is respected.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from gahb.threads import beside

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.progress import Progress

Item = TypeVar("Item")

PATIENCE_SECONDS = 1.0
"""What takes less shows no bar."""

on = False
"""Whether a command wants it, with a person before the terminal."""

page: "Callable[[RenderableType], None] | None" = None
"""Shows a table in a notebook, in the place of the one before."""

PAGE_SECONDS = 2.0
"""After which it is drawn again."""

_console: "Console | None" = None
"""Of what is moving."""

_moving: "Live | Progress | None" = None


def interactive() -> bool:
    """Whether something may move here."""
    return on and sys.stderr.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


def drawable() -> bool:
    """Whether a table may be drawn here."""
    return interactive() or page is not None


def write(line: str) -> None:
    """A line on stderr, above what is moving."""
    if _console:
        from rich.text import Text

        _console.print(Text(line), soft_wrap=True)
    else:
        print(line, file=sys.stderr, flush=True)


def stop() -> None:
    """End what is moving, before the process ends without a word."""
    if _moving:
        _moving.stop()


@contextlib.contextmanager
def table(draw: Callable[["Console"], "RenderableType"], redraws_per_second: float = 2) -> Iterator[None]:
    """While the block lasts, what `draw` returns of late, at once. It is called in a thread, must be quick, and stays
    as it is last."""
    if not interactive() and page:
        with _on_page(draw, page):
            yield
        return
    if not interactive() or _moving:
        yield
        return
    from rich.live import Live

    console = _new_console()
    live = Live(
        get_renderable=lambda: draw(console),
        console=console,
        refresh_per_second=redraws_per_second,
        redirect_stdout=False,
        vertical_overflow="crop",
    )
    with _now_moves(live, console):
        yield


def track(items: Sequence[Item], what: str) -> Iterator[Item]:
    """The items, with a bar that says how many of them have been dealt with; `what` is done, "reading images"."""
    with bar(what, len(items)) as advance:
        for item in items:
            yield item
            advance(1)


@contextlib.contextmanager
def bar(what: str, total: int | None, *, in_bytes: bool = False) -> Iterator[Callable[[int], None]]:
    """A bar while the block lasts; gives what moves it on by so many, from any thread. The total may be unknown."""
    if not interactive() or _moving:
        yield lambda number: None
        return
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = _new_console()
    count = DownloadColumn() if in_bytes else MofNCompleteColumn()
    columns = TextColumn("{task.description}", markup=False), BarColumn(), count, TimeRemainingColumn(compact=True)
    shown = Progress(*columns, console=console, transient=True, refresh_per_second=5, redirect_stdout=False)
    task = shown.add_task(what, total=total)
    began, beginning = time.monotonic(), threading.Lock()

    with contextlib.ExitStack() as stack:

        def advance(number: int) -> None:
            shown.advance(task, number)
            with beginning:
                if not _moving and time.monotonic() - began > PATIENCE_SECONDS:
                    stack.enter_context(_now_moves(shown, console))

        yield advance


@contextlib.contextmanager
def _on_page(draw: Callable[["Console"], "RenderableType"], show: "Callable[[RenderableType], None]") -> Iterator[None]:
    """While the block lasts, what `draw` returns of late, shown from a thread, and once more at the end."""
    console = _new_console()

    def keep_drawing() -> Iterator[float]:
        while True:
            yield PAGE_SECONDS
            show(draw(console))

    try:
        with beside(keep_drawing()):
            yield
    finally:
        show(draw(console))


@contextlib.contextmanager
def _now_moves(what: "Live | Progress", console: "Console") -> Iterator[None]:
    global _moving, _console
    with what:
        _moving, _console = what, console
        try:
            yield
        finally:
            _moving = _console = None


def _new_console() -> "Console":
    from rich.console import Console

    return Console(stderr=True, highlight=False)
