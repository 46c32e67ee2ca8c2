"""docs/results.md, and a part of README, from the tables in docs/results alone: no number in it is typed by hand.

The templates in `text` are the prose, one for each part; what they may call stands in `Page`.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .campaign import PARTS, Part
from .gather import FOLDER

TEXT = Path(__file__).with_name("text")
PAGE = FOLDER.with_suffix(".md")
README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- the campaign: written by `make results` -->", "<!-- end of the campaign -->"


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
        """A table, by its path without suffix; times to the minute."""
        table = pd.read_csv(self.folder / f"{file}.csv")
        return table.assign(made=table["made"].str[:16].str.replace("T", " ")) if "made" in table else table

    def table(self, rows: pd.DataFrame, **columns: str) -> str:
        """Markdown of some columns: column → heading."""
        lines = [list(columns.values()), ["---"] * len(columns)]
        lines += [[_cell(key, row[key]) for key in columns] for row in rows.to_dict("records")]
        return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)

    def predictions(self, sweep: str, longer: str = "", *, measured: bool) -> pd.DataFrame:
        """What was predicted of a sweep's N*, and has been measured since, or has not; where a longer sweep of the same
        trainings has come so far, by that."""
        files = [f"{sweep}/phase/{stem}" for stem in ("outcomes", "predictions")]
        rows = pd.concat([self.read(file) for file in files if self.has(file)], ignore_index=True)
        rows = rows.reindex(columns=list(dict.fromkeys([*rows, "measured", "inside"])))
        if self.has(f"{longer}/phase/n_star"):
            stars = self.read(f"{longer}/phase/n_star").set_index("images_seen")["n_star"]
            late = rows["measured"].isna() & rows["images_seen"].map(stars).notna()
            rows.loc[late, "measured"] = rows["images_seen"].map(stars)
            rows.loc[late, "inside"] = rows["measured"].between(rows["low"], rows["high"])
        return rows[rows["measured"].notna() == measured]

    def beside(self, file: str, longer: str) -> pd.DataFrame:
        """N* of the first curve of two sweeps at each number of images seen, in words as `star` and `longer`."""
        keys = ["images_seen", "star", "n_star", "train_psnr"]
        first, second = (rows[rows["curve"] == rows["curve"].iloc[0]][keys] for rows in map(self.stars, (file, longer)))
        rows = first.merge(second.rename(columns={"star": "longer"}), "outer", "images_seen", suffixes=("_first", ""))
        return rows[rows["n_star"].notna() | rows["n_star_first"].notna()].fillna({"star": "–", "longer": "–"})

    def stars(self, file: str) -> pd.DataFrame:
        """A table of N*, each with its interval, or the bound, in words as `star`."""
        rows = self.read(file)
        rows["star"] = [interval(row, "n_star") for row in rows.to_dict("records")]
        return rows

    def last(self, file: str, images: float) -> pd.DataFrame:
        """Of `stars` each curve's row at so many images, or at the most below."""
        rows = self.stars(file)
        return rows[rows["images_seen"] <= 1.05 * images].groupby("curve", sort=False).tail(1)

    def star(self, file: str, images: float = math.inf) -> dict[Any, Any]:
        """Of `stars` the row of the first curve at so many images, or at the most below."""
        row: dict[Any, Any] = self.last(file, images).iloc[0].to_dict()
        return row

    def at_psnr(self, file: str, train_psnr: float) -> pd.DataFrame:
        """N* of each curve where the train PSNR there is so many dB; log N* is interpolated over the lengths.

        NaN, with the range as its bound, where the curve's N* were measured at other PSNRs only, and the last bound
        where none was. Lengths after the one of the highest PSNR are left out: N* goes on growing there at a PSNR that
        no longer tells how far it is.
        """
        rows = []
        for _, group in self.stars(file).groupby("curve", sort=False):
            known = group.dropna(subset=["n_star", "train_psnr"]).sort_values("images_seen")
            last: dict[Any, Any] = group.iloc[-1].to_dict()
            if known.empty:
                rows.append(last)
                continue
            known = known[: known["train_psnr"].argmax() + 1].sort_values("train_psnr")
            found = {
                key: float(np.exp(np.interp(train_psnr, known["train_psnr"], np.log(known[key]), math.nan, math.nan)))
                for key in ("n_star", "low", "high")
            }
            ends = [f"{psnr:.2f}" for psnr in known["train_psnr"].iloc[[0, -1]]]
            bound = f"measured at {' … '.join(ends)} dB" if math.isnan(found["n_star"]) else None
            rows.append({**last, **found, "star": interval({**found, "bound": bound}, "n_star")})
        return pd.DataFrame(rows)

    def networks(self, images: float, train_psnr: float) -> pd.DataFrame:
        """A row a network of the sweeps of faces at 20×20: its size, N* at so many images, and at one train PSNR."""
        rows = []
        for sweep in ("faces", *PARTS["architecture"].sweeps):
            trials = self.read(f"{sweep}/trials").drop_duplicates("parameters").set_index("parameters")
            equal = self.at_psnr(f"{sweep}/phase/n_star", train_psnr).set_index("curve")["star"]
            for row in self.last(f"{sweep}/phase/n_star", images).to_dict("records"):
                of = trials.loc[row["parameters"]]
                rows.append({**row, **of[["network", "receptive_field"]], "equal": equal[row["curve"]]})
        return pd.DataFrame(rows)

    def by_n(self, file: str) -> pd.DataFrame:
        """A table of pairs as means over seeds, a row each N; of several lengths, the first's curve."""
        rows = self.read(file)
        return rows[rows["curve"] == rows["curve"].iloc[0]].groupby("n_train", as_index=False).mean(numeric_only=True)

    def matrix(self, file: str, rows: str, columns: str, values: str) -> str:
        """Markdown of a table with a row and a column for each of two columns' values, in the order of the table."""
        table = self.read(file)
        names = list(table[columns].unique())
        lines = [[rows, *names], ["---"] * (len(names) + 1)]
        for name, group in table.groupby(rows, sort=False):
            lines.append([str(name), *(f"{value:.2f}" for value in group.set_index(columns)[values][names])])
        return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)

    def setup(self, part: Part) -> pd.DataFrame:
        """A row a sweep of a part: its images, N, subsets, seeds, images seen by a trial, and the machine."""
        rows = []
        for sweep in part.sweeps:
            trials = self.read(f"{sweep}/trials")
            sizes = sorted(trials["n_train"].unique())
            shapes = " and ".join(f"{side}×{side}" for side in sorted(trials["resolution"].unique()))
            rows.append(
                {
                    "sweep": sweep,
                    "data": f"{', '.join(trials['data'].unique())} {shapes}",
                    "sizes": ", ".join(map(number, sizes)),
                    "subsets": " and ".join(sorted(trials["subset"].unique())),
                    "seeds": ", ".join(str(seed) for seed in sorted(trials["seed"].unique())),
                    "images": " or ".join(number(images) for images in sorted(trials["images"].unique())),
                    "device": ", ".join(trials["device"].dropna().unique()),
                }
            )
        return pd.DataFrame(rows)

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
                        "finished": int((trials["state"] == "finished").sum()),
                        "images": trials["images_seen"].sum() - trials["images_reused"].sum(),
                        "hours": trials["seconds"].sum() / 3600,
                        "ratio": both["seconds"].sum() / both["planned_seconds"].sum() if len(both) else math.nan,
                    }
                )
        return pd.DataFrame(rows)


def interval(row: Mapping[Any, Any], key: str) -> str:
    """A value with its 95 % interval, or the bound that is known of it."""
    if isinstance(row.get("bound"), str):
        return row["bound"]
    ends = [number(row[end]) for end in ("low", "high")]
    return f"{number(row[key])} ({ends[0]} … {ends[1]})" if ends != ["–", "–"] else number(row[key])


def _cell(key: str, value: Any) -> str:
    """As `number`; a PSNR to hundredths."""
    return f"{value:.2f}" if key.endswith("psnr") and math.isfinite(value) else number(value)


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
    return _fill("page", folder) + "\n"


def in_readme(readme: str, folder: Path = FOLDER) -> str:
    """README with what stands in it between BEGIN and END written anew."""
    before, _, rest = readme.partition(BEGIN)
    return f"{before}{BEGIN}\n{_fill('readme', folder)}\n{END}{rest.partition(END)[2]}"


def _fill(name: str, folder: Path) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEXT), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    text = environment.get_template(f"{name}.md.j2").render(
        page=Page(folder), parts=PARTS, number=number, interval=interval
    )
    return re.sub(r"\n{3,}", "\n\n", text).strip()
