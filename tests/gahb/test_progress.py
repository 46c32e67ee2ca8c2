"""What moves on a terminal, looked at through a real one."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from gahb import progress
from gahb.data import similarity
from gahb.data.dataset import Dataset, prepare
from gahb.data.disks import Disks
from gahb.denoising import jacobian, sampling
from tests.helpers import Place, Terminal

CODE = """
import time
from rich.text import Text
from gahb import progress
progress.on = True
progress.PATIENCE_SECONDS = 0.05
with progress.table(lambda console: Text("a table", style="red"), redraws_per_second=20):
    progress.write("a line [bold]" + 80 * "x")
    time.sleep(0.2)
assert list(progress.track(range(5), "counting")) == [0, 1, 2, 3, 4]
for _ in progress.track(range(5), "counting"):
    time.sleep(0.1)
    assert not list(progress.track((), "inside"))
progress.write("the end")
"""


def on_a_terminal(**variables: str) -> str:
    """What the code writes to one."""
    with Terminal([sys.executable, "-c", CODE], **variables) as terminal:
        assert terminal.end() == 0, terminal.shown
        return terminal.shown


def test_a_page_shows_a_table_again_and_again_and_as_it_is_last(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, drawn = list[Any](), iter(range(100))
    monkeypatch.setattr(progress, "page", shown.append)
    monkeypatch.setattr(progress, "PAGE_SECONDS", 0.01)
    with progress.table(lambda console: str(next(drawn))):
        while len(shown) < 3:
            time.sleep(0.01)
    assert shown == [str(number) for number in range(len(shown))] and next(drawn) == len(shown)


def test_a_table_and_bars_move_and_lines_stay_whole_above() -> None:
    written = on_a_terminal()
    assert "\x1b[31ma table" in written and "counting" in written
    assert "a line [bold]" + 80 * "x" in written and written.rstrip().endswith("the end")
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h") > 0, "the cursor is shown again"


def test_no_color() -> None:
    assert "\x1b[31m" not in on_a_terminal(NO_COLOR="1")


def test_a_dumb_terminal_gets_lines_alone() -> None:
    assert on_a_terminal(TERM="dumb") == "a line [bold]" + 80 * "x" + "\r\nthe end\r\n"


def test_elsewhere_lines_are_all_there_is(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "on", True)
    with progress.bar("counting", 3) as advance:
        advance(3)
    progress.write("a line")
    assert capfd.readouterr() == ("", "a line\n")


def test_bars_end_at_their_totals(monkeypatch: pytest.MonkeyPatch, place: Place) -> None:
    seen: dict[str, list[int]] = {}

    @contextlib.contextmanager
    def counted(what: str, total: int, **_: Any) -> Iterator[Callable[[int], None]]:
        moved: list[int] = []
        yield moved.append
        seen[what] = [total, sum(moved)]

    monkeypatch.setattr(progress, "bar", counted)
    prepare(Dataset(Disks(), 8), place.store, 100)
    similarity.near_duplicates(np.random.default_rng(0).random((5, 16, 16), np.float32), 0.9)
    sampling.sample(torch.zeros_like, 70, (1, 4, 4), mean=0.5)
    jacobian.full(torch.tanh, torch.rand(1, 1, 4, 4), rows=16)
    expected = {"drawing images": 100, "looking for near-duplicates": 1, "sampling": 70, "Jacobian": 1}
    assert seen == {what: [total, total] for what, total in expected.items()}
