"""How answers look in a notebook, and how what takes time talks there: in one place that is updated, no widgets."""

import base64
import contextlib
import html
import io
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from gahb import progress
from gahb.text import printable, without_passwords

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from rich.console import RenderableType

LAST = 12
"""Lines of talk that are shown while there is more to come."""

WIDTH = 100
"""Of a table that moves, in letters."""


def shell() -> Any:
    """IPython's shell where this process is the kernel of a notebook; None elsewhere."""
    found = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return found if hasattr(found, "kernel") else None


@contextlib.contextmanager
def talk() -> Iterator[None]:
    """A block whose talk on stderr is shown, in a notebook, in one place below the cell: its last lines and, below
    them, what is drawn again and again (`gahb.progress.table`)."""
    if not shell() or isinstance(sys.stderr, _Talk):
        yield
        return
    shown = _Talk()
    progress.page = shown.draw
    try:
        with contextlib.redirect_stderr(shown):
            yield
    finally:
        progress.page = None
        shown.end()


class _Talk(io.TextIOBase):
    """Takes lines and a table, and shows them where the first one was shown."""

    def __init__(self) -> None:
        self.text, self.table, self.place = "", ("", ""), None

    def write(self, text: str) -> int:
        self.text += text
        if "\n" in text:
            self._show(LAST)
        return len(text)

    def draw(self, table: "RenderableType") -> None:
        """Show a table below the lines."""
        from rich.console import Console

        console = Console(record=True, file=io.StringIO(), width=WIDTH, highlight=False, force_jupyter=False)
        console.print(table)
        page = console.export_html(inline_styles=True, code_format="<pre>{code}</pre>", clear=False)
        self.table = console.export_text(), page
        self._show(LAST)

    def end(self) -> None:
        """Show all lines, for there are no more."""
        if self.text:
            self._show(len(self.text))

    def _show(self, most: int) -> None:
        from IPython.display import display, update_display

        lines = "\n".join(map(clean, self.text.splitlines()[-most:]))
        text, page = self.table
        data = {"text/plain": f"{lines}\n{text}".strip(), "text/html": f"<pre>{html.escape(lines)}</pre>{page}"}
        if self.place is None:
            self.place = display(data, raw=True, display_id=True)
        else:
            update_display(data, raw=True, display_id=self.place.display_id)


def clean(text: str) -> str:
    """A text from wherever, harmless to what shows it, without passwords."""
    return printable(without_passwords(text))


def page(*parts: str) -> str:
    """HTML below each other, those that are empty left out."""
    return "\n".join(filter(None, parts))


def heading(text: str) -> str:
    """HTML of a title."""
    return f"<p><b>{html.escape(clean(text))}</b></p>"


def lines(texts: Sequence[str]) -> str:
    """HTML of lines of text."""
    return "".join(f"<p>{html.escape(clean(text))}</p>" for text in texts)


def table(df: "pd.DataFrame") -> str:
    """HTML of a table, numbers with four digits."""
    shown = df.map(lambda cell: clean(cell) if isinstance(cell, str) else "–" if cell is None else cell)
    text: str = shown.to_html(index=False, na_rep="–", float_format="{:.4g}".format, border=0)
    return text


def picture(figure: "Figure") -> str:
    """HTML of a figure, with the picture in it."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=100, bbox_inches="tight")
    return f'<img src="data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}">'


def frame(text: str) -> str:
    """HTML of a page, in a frame of its own, whose scripts do not reach this one."""
    return f'<iframe sandbox="allow-scripts" srcdoc="{html.escape(text)}" width="100%" height="600"></iframe>'


def show_figures() -> None:
    """Let the notebook, if this is one, show a figure that is the last value of a cell as a picture."""
    if kernel := shell():
        from IPython.core.pylabtools import select_figure_formats

        select_figure_formats(kernel, {"png"}, bbox_inches="tight")
