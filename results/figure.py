"""One picture of the campaign: where each gap closes, against training, and against what training came to."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from gahb.figures.style import COLOURS, plain, save

from .campaign import PARTS
from .gather import FOLDER

PICTURE = "transition.png"
MARKERS = "osD^vP*X"


def stars(folder: Path = FOLDER) -> dict[str, pd.DataFrame]:
    """Sweep, and curve where it has several → its N* that were measured, in the order of the campaign."""
    found = {}
    for sweep in dict.fromkeys(sweep for part in PARTS.values() for sweep in part.sweeps):
        file = folder / sweep / "phase" / "n_star.csv"
        if file.exists():
            table = pd.read_csv(file).dropna(subset=["n_star"])
            several = table["curve"].nunique() > 1
            for curve, rows in table.groupby("curve", sort=False):
                found[f"{sweep}, {curve!s}" if several else sweep] = rows
    return found


def figure(curves: dict[str, pd.DataFrame]) -> Figure:
    """N* with its interval against images seen, and against the train PSNR at N*."""
    picture = Figure(figsize=(11, 4.6), layout="constrained")
    axes = picture.subplots(1, 2, sharey=True)
    for number, (name, rows) in enumerate(curves.items()):
        off = (rows["n_star"] - rows["low"], rows["high"] - rows["n_star"])
        look = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number // len(COLOURS)], "ms": 4}
        for ax, key in zip(axes, ("images_seen", "train_psnr"), strict=True):
            ax.errorbar(rows[key], rows["n_star"], off, label=plain(name), capsize=2, lw=1, **look)
    axes[0].set(xscale="log", yscale="log", xlabel="images seen", ylabel="N*, where the PSNR gap falls below 1 dB")
    for axis in (axes[0].xaxis, axes[0].yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(EngFormatter(sep=""))
        axis.set_minor_formatter(NullFormatter())
    axes[1].set(xlabel="train PSNR at N* (dB)")
    axes[1].legend(fontsize=8, loc="upper left")
    return picture


def draw(folder: Path = FOLDER) -> None:
    """Write the picture, if anything has been measured."""
    if curves := stars(folder):
        save(figure(curves), folder / PICTURE)
