"""The trials of a sweep as they stand, from the record alone: a table that `launch` and `status --watch` draw.

A trial's time left is that of its images at its speed; the sweep's is that of the floating-point operations that are
left, at the speed of all that run now, and no less than that of its longest trial.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gahb import progress
from gahb.errors import UserError
from gahb.planning.plan import shown_state, states_of
from gahb.quantities import amount, duration
from gahb.storage.base import Storage
from gahb.text import printable, without_passwords
from gahb.threads import beside
from gahb.tracking.run import Run
from gahb.training import cost

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

POLL_SECONDS = 2.0

LINE_SECONDS = 60.0
"""Between two lines that say how far the trials are, where no table can be drawn."""

READING = 0.05
"""The largest share of the time in which the record is read."""

STYLES = {"finished": "green", "running": "cyan", "scheduled": "", "failed": "bold red", "interrupted": "yellow"}
"""Of the states, in the order in which they are named."""

NAMED = 4
"""Trials that such a line names."""

MOST_REASONS = 8
"""Trials of which it is said what went wrong."""

BAR, GAP = 16, 2
"""Columns of a trial's bar, and between two columns of the table."""


@dataclass(frozen=True)
class Standing:
    """How a trial stands: its run, and its state as it is shown."""

    run: Run
    state: str

    @property
    def images(self) -> int:
        """How many it shall see, at most."""
        return int(self.run.flat["images"])

    @property
    def images_left(self) -> int:
        """How many it shall still see; the last batch may have gone beyond the end."""
        return max(0, self.images - self.run.images_seen)

    @property
    def left(self) -> float | None:
        """Seconds until it ends, if its speed is known."""
        speed = self.run.images_per_second
        return self.images_left / speed if speed else None


class Board:
    """The trials of a sweep.

    Args:
        title: the sweep.
        read: reads their runs anew.
        storage: of the trials.
    """

    def __init__(self, title: str, read: Callable[[], Sequence[Run]], storage: Storage) -> None:
        self.title, self._read, self._storage = title, read, storage
        self.trials: list[Standing] = []
        self._flops: dict[str, float] = {}

    def read(self) -> float:
        """Read the record; seconds after which to do so again. Raises UserError if it cannot be read."""
        started = time.monotonic()
        runs = self._read()
        states = states_of(runs, self._storage)
        self.trials = [Standing(run, shown_state(run, states[run.run_id])) for run in runs]
        return max(POLL_SECONDS, (time.monotonic() - started) / READING)

    @property
    def unfinished(self) -> bool:
        """Whether a living launch has something left to do."""
        return any(trial.state in ("scheduled", "running") for trial in self.trials)

    def left(self) -> float | None:
        """Seconds until all have ended, if a speed is known."""
        unfinished = [trial for trial in self.trials if trial.state in ("scheduled", "running")]
        speed = sum(trial.run.images_per_second * self._image(trial) for trial in unfinished)
        rest = sum(trial.images_left * self._image(trial) for trial in unfinished)
        longest = max((trial.left or 0 for trial in unfinished), default=0)
        return max(rest / speed, longest) if speed else None

    def _image(self, trial: Standing) -> float:
        """Floating-point operations that an image of a trial takes; 1 where a guest is not here that knows."""
        signature = trial.run.signature
        if signature not in self._flops:
            self._flops[signature] = 1.0
            with contextlib.suppress(UserError):
                self._flops[signature] = cost.training_flops(trial.run.trial) / trial.images
        return self._flops[signature]

    def summary(self) -> str:
        """ "12 trials: 4 finished, 2 running, 6 scheduled; about 3 min left"."""
        left = self.left()
        rest = f"; about {duration(left)} left" if left is not None else ""
        return f"{len(self.trials)} trials: {', '.join(words for _, words in self._counts())}{rest}"

    def line(self) -> str:
        """ "2 running, 6 scheduled; 16x16-N4-A 4,096 of 9,600 images; about 3 min left"; without finished trials."""
        under_way = [words for state, words in self._counts() if state != "finished"]
        running = [trial for trial in self.trials if trial.state == "running"]
        far = [f"{t.run.name} {t.run.images_seen:,} of {t.images:,} images" for t in running[:NAMED]]
        more = [f"{len(running) - NAMED} more"] if len(running) > NAMED else []
        left = self.left()
        rest = [f"about {duration(left)} left"] if left is not None else []
        return "; ".join(filter(None, (", ".join(under_way), ", ".join([*far, *more]), *rest)))

    def _counts(self) -> list[tuple[str, str]]:
        """State and "4 finished" of each that some are in."""
        counts = Counter(trial.state for trial in self.trials)
        return [(state, f"{counts[state]} {state}") for state in STYLES if counts[state]]

    def draw(self, console: "Console") -> "RenderableType":
        """The table, as large as the terminal allows."""
        from rich.console import Group
        from rich.text import Text

        title = Text(f"{_shown(self.title)}  {self.summary()}", no_wrap=True, overflow="ellipsis")
        title.stylize("bold", 0, len(_shown(self.title)))
        for state, words in self._counts():
            title.highlight_words([words], STYLES[state])
        parts: list[RenderableType] = [title]
        running = [trial for trial in self.trials if trial.state == "running"]
        wrong = [trial for trial in self.trials if trial.run.reason and trial.state != "interrupted"]
        room = max(1, console.height - 5 - min(len(wrong), MOST_REASONS))
        if running:
            parts.append(_table(running[:room], console.width))
        if len(running) > room:
            parts.append(Text(f"and {len(running) - room} more that run", style="dim"))
        for trial in wrong[-MOST_REASONS:]:
            words = f"{trial.run.name} {trial.state}: {trial.run.reason}"
            parts.append(Text(_shown(words), style=STYLES.get(trial.state, ""), no_wrap=True, overflow="ellipsis"))
        return Group(*parts)


@contextlib.contextmanager
def shown(board: Board, say: Callable[[str], None]) -> Iterator[None]:
    """While the block lasts, the board, which is read anew in a thread: as a table, or where none can be drawn as a
    line every LINE_SECONDS."""

    def keep_saying() -> Iterator[float]:
        while True:
            yield LINE_SECONDS
            with contextlib.suppress(UserError):
                board.read()
                say(board.line())

    if not progress.drawable():
        with beside(keep_saying()):
            yield
        return

    def keep_reading() -> Iterator[float]:
        while True:
            pause = POLL_SECONDS
            with contextlib.suppress(UserError):  # the record does not answer, and will be asked again
                pause = board.read()
            yield pause

    with progress.table(board.draw):
        try:
            with beside(keep_reading()):
                yield
        finally:
            with contextlib.suppress(UserError):
                board.read()


def watch(board: Board, say: Callable[[str], None]) -> None:
    """Show a board until nothing is left to do: as a table, or where none can be drawn as a line for each trial that
    changes its state. Raises UserError if the record cannot be read."""
    board.read()
    with progress.table(board.draw):
        told = dict[str, str]()
        while True:
            for trial in board.trials:
                if told.get(trial.run.run_id) != trial.state:
                    told[trial.run.run_id] = trial.state
                    if not progress.interactive():
                        say(in_words(trial))
            if not board.unfinished:
                break
            time.sleep(POLL_SECONDS)
            board.read()


def in_words(trial: Standing) -> str:
    """A trial as one line."""
    run = trial.run
    gap = f"PSNR gap {run.metrics['psnr_gap']:.2f} dB" if "psnr_gap" in run.metrics else ""
    on_the_way = run.images_seen and trial.state != "finished"
    seen = f"{amount(run.images_seen)} of {amount(trial.images)} images" if on_the_way else ""
    facts = ", ".join(filter(None, (seen, gap, run.reason)))
    return f"{run.name} {trial.state}" + (f": {facts}" if facts else "")


def _table(trials: Sequence[Standing], width: int) -> "RenderableType":
    """The trials that run, in so many columns of the terminal. Where it is narrow, what tells less is left out, and
    names end early."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    rows = [
        {
            "images seen": f"{amount(trial.run.images_seen)} / {amount(trial.images)}",
            "images/s": amount(trial.run.images_per_second) if trial.run.images_per_second else "–",
            "train": _db(trial.run, "train_psnr"),
            "test": _db(trial.run, "test_psnr"),
            "gap": _db(trial.run, "psnr_gap"),
            "left": duration(trial.left),
        }
        for trial in trials
    ]
    bar = width >= 100
    left_out = {"train", "test"} if width < 72 else set()
    left_out |= {"images/s"} if width < 56 else set()
    shown = [key for key in rows[0] if key not in left_out]
    taken = sum(GAP + max(len(key), *(len(row[key]) for row in rows)) for key in shown) + bar * (GAP + BAR)
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("trial", no_wrap=True, style="cyan")
    for key in [*([""] if bar else []), *shown]:
        table.add_column(key, justify="right", no_wrap=True)
    for trial, row in zip(trials, rows, strict=True):
        name = Text(_shown(trial.run.name))
        name.truncate(max(8, width - taken), overflow="ellipsis")
        bars = [ProgressBar(trial.images, trial.run.images_seen, BAR, complete_style="cyan")] if bar else []
        table.add_row(name, *bars, *(row[key] for key in shown))
    return table


def _db(run: Run, key: str) -> str:
    return f"{run.metrics[key]:.2f}" if key in run.metrics else "–"


def _shown(text: str) -> str:
    return printable(without_passwords(text))
