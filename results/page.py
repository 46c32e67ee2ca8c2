"""docs/results.md from the tables in docs/results alone: no number in it is typed by hand.

The templates in `text` are the prose, one for each part; what they may call stands in `Page`.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from .campaign import PARTS, Part
from .gather import FOLDER

TEXT = Path(__file__).with_name("text")
PAGE = FOLDER.with_suffix(".md")


class Page:
    """What the template calls.

    Args:
        folder: with the tables.
    """

    def __init__(self, folder: Path = FOLDER) -> None:
        self.folder = folder

    def has(self, *files: str) -> bool:
        """Whether the campaign has come so far."""
        return all((self.folder / f"{file}.csv").exists() for file in files)

    def answered(self, part: Part) -> bool:
        """Whether all that is kept of a part is there."""
        return all((self.folder / kept.folder).exists() for kept in part.kept)

    def read(self, file: str) -> pd.DataFrame:
        """A table, by its path without suffix."""
        return pd.read_csv(self.folder / f"{file}.csv")

    def table(self, rows: pd.DataFrame, **columns: str) -> str:
        """Markdown of some columns: column → heading."""
        lines = [list(columns.values()), ["---"] * len(columns)]
        lines += [[number(row[key]) for key in columns] for row in rows.to_dict("records")]
        return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)

    def stars(self, file: str) -> pd.DataFrame:
        """A table of N*, each with its interval, or the bound, in words as `star`."""
        rows = self.read(file)
        rows["star"] = [interval(row, "n_star") for row in rows.to_dict("records")]
        return rows

    def last(self, file: str, images: float) -> pd.DataFrame:
        """Of `stars` each curve's row at so many images, or at the most below."""
        rows = self.stars(file)
        return rows[rows["images_seen"] <= 1.05 * images].groupby("curve", sort=False).tail(1)

    def nearest(self, file: str, train_psnr: float) -> pd.DataFrame:
        """Of `stars` the row whose train PSNR at N* is nearest."""
        rows = self.stars(file)
        return rows.loc[[(rows["train_psnr"] - train_psnr).abs().idxmin()]]

    def cost(self, *parts: str) -> pd.DataFrame:
        """A row a part of what was run: trials, images seen, core-hours as planned and as measured."""
        rows = []
        for name in parts:
            files = [f"{sweep}/trials" for sweep in PARTS[name].sweeps]
            if found := [self.read(file) for file in files if self.has(file)]:
                trials = pd.concat(found)
                both = trials.dropna(subset=["planned_seconds", "seconds"])
                rows.append(
                    {
                        "part": PARTS[name].title,
                        "trials": len(trials),
                        "images": f"{trials['images_seen'].sum():.2g}",
                        "hours": trials["seconds"].sum() / 3600,
                        "ratio": both["seconds"].sum() / both["planned_seconds"].sum() if len(both) else math.nan,
                    }
                )
        return pd.DataFrame(rows)


def interval(row: Mapping[Any, Any], key: str) -> str:
    """A value with its 95 % interval, or the bound that is known of it."""
    if isinstance(row["bound"], str):
        return row["bound"]
    ends = [number(row[end]) for end in ("low", "high")]
    return f"{number(row[key])} ({ends[0]} … {ends[1]})" if ends != ["–", "–"] else number(row[key])


def number(value: Any) -> str:
    """A number to three digits, thousands marked; a text as it is; a dash for what is not known."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"


def write(folder: Path = FOLDER) -> str:
    """The page's text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEXT), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("page.md.j2")
    text = page.render(page=Page(folder), parts=PARTS, number=number, interval=interval)
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"
