"""How answers look in a notebook, and how what takes time talks there: in one place that is updated, no widgets."""

import base64
import contextlib
import html
import io
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from gahb.text import printable, without_passwords

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

LAST = 12
"""Lines of talk that are shown while there is more to come."""


def shell() -> Any:
    """IPython's shell where this process is the kernel of a notebook; None elsewhere."""
    found = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return found if hasattr(found, "kernel") else None


@contextlib.contextmanager
def talk() -> Iterator[None]:
    """A block whose talk on stderr is shown, in a notebook, in one place below the cell, its last lines at a time."""
    if not shell() or isinstance(sys.stderr, _Talk):
        yield
        return
    shown = _Talk()
    try:
        with contextlib.redirect_stderr(shown):
            yield
    finally:
        shown.end()


class _Talk(io.TextIOBase):
    """Takes lines, and shows them where the first one was shown."""

    def __init__(self) -> None:
        self.text, self.place = "", None

    def write(self, text: str) -> int:
        self.text += text
        if "\n" in text:
            self._show(self.text.splitlines()[-LAST:])
        return len(text)

    def end(self) -> None:
        """Show all lines, for there are no more."""
        if self.text:
            self._show(self.text.splitlines())

    def _show(self, lines: Sequence[str]) -> None:
        from IPython.display import display, update_display

        text = "\n".join(map(clean, lines))
        data = {"text/plain": text, "text/html": f"<pre>{html.escape(text)}</pre>"}
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
    shown = df.map(lambda cell: clean(cell) if isinstance(cell, str) else cell)
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
