"""The picture of a phase diagram."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter

from gahb.denoising.levels import Gap
from gahb.figures import style

from .collapse import Collapse
from .gaps import Vector
from .predictions import TOLD
from .scaling import FLOOR


def figure(
    course: pd.DataFrame,
    cells: pd.DataFrame,
    stars: pd.DataFrame,
    times: pd.DataFrame,
    exponents: pd.DataFrame,
    collapses: Mapping[str, Collapse],
    predicted: pd.DataFrame,
    threshold: float,
    gap: Gap,
) -> Figure:
    """A row a curve: the gap over N × images seen with N* and its predictions; excess and memorised fraction, where
    samples were drawn; τ against N; and the gap against images/N^q."""
    curves = list(cells["curve"].unique())
    sampled = bool(course["memorised"].notna().any())
    picture = Figure(figsize=(13 + 4 * sampled, 0.4 + 3.7 * len(curves)), layout="constrained")
    grid = picture.subplots(len(curves), 3 + sampled, squeeze=False, width_ratios=[1.25, *[1] * (2 + sampled)])
    shown = cells[gap.metric].clip(lower=threshold / 30)
    colours = LogNorm(shown.min(), max(shown.max(), 1.01 * shown.min()))
    for curve, (plane, *between, ages, together) in zip(curves, grid, strict=True):
        own, star = cells[cells["curve"] == curve], stars[stars["curve"] == curve]
        mesh = _draw_plane(plane, own.assign(shown=shown[own.index]), colours)
        picture.colorbar(mesh, ax=plane, label=f"PSNR gap (dB), over {gap.average}", extend="min", format="%g")
        later = predicted[(predicted["curve"] == curve) & predicted["law"].isin(TOLD)]
        same = (later["threshold_db"] == threshold) & (later["gap"] == gap.value)
        _draw_stars(plane, star, later[same], own["n_train"])
        plane.set_title(style.plain(str(curve)), fontsize=9)
        for axes in between:
            _draw_samples(axes, own)
        _draw_times(ages, times[times["curve"] == curve], exponents[exponents["curve"] == curve])
        _draw_collapse(together, own, collapses.get(curve), threshold, gap)
    return picture


def _draw_plane(axes: Axes, cells: pd.DataFrame, colours: LogNorm) -> Any:
    table = cells.pivot_table(index="n_train", columns="images_seen", values="shown")
    x, y = (_edges(np.array(axis, dtype=float)) for axis in (table.columns, table.index))
    mesh = axes.pcolormesh(x, y, np.ma.masked_invalid(table.to_numpy()), norm=colours, cmap="cividis")
    _logarithmic(axes, "images seen", "", of="x")
    style.against_n(axes, cells["n_train"], of="y")
    return mesh


def _edges(values: Vector) -> Vector:
    """The borders of cells around ascending values, halfway between them on a logarithmic axis."""
    if len(values) == 1:
        return np.array([values[0] / math.sqrt(2), values[0] * math.sqrt(2)])
    middles = np.sqrt(values[1:] * values[:-1])
    return np.array([values[0] ** 2 / middles[0], *middles, values[-1] ** 2 / middles[-1]])


def _logarithmic(axes: Axes, x: str, y: str, *, of: Sequence[str] = "xy") -> None:
    """Label the axes; those named are logarithmic, with ticks like 0.1, 1, 500, 2k."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    for name in of:
        axes.set(**{f"{name}scale": "log"})
        axis = axes.xaxis if name == "x" else axes.yaxis
        low, high = axis.get_view_interval()
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 300 * low else (1,)))
        axis.set_major_formatter(FuncFormatter(_tick))
        axis.set_minor_formatter(NullFormatter())


def _tick(value: float, position: int) -> str:
    return EngFormatter(sep="")(value) if value >= 1 else f"{value:g}"


def _draw_stars(axes: Axes, stars: pd.DataFrame, predicted: pd.DataFrame, sizes: pd.Series) -> None:
    """N* with intervals, triangles where it lies beyond the N of the sweep, and predictions, the newest joined."""
    colour = style.COLOURS[1]
    known = stars[stars["n_star"].notna()]
    bars = _bars(known)
    axes.errorbar(known["images_seen"], known["n_star"], bars, color=colour, capsize=2, marker="o", mec="white")
    for side, marker, at in (("<", "v", sizes.min()), (">", "^", sizes.max())):
        beyond = stars.loc[[str(bound).startswith(side) for bound in stars["bound"]]]
        axes.plot(beyond["images_seen"], [at] * len(beyond), marker, color=colour, mec="white")
    handles = [Line2D([], [], color=colour, marker="o", mec="white", label="N*")]
    for law, marker, line in zip(TOLD, "Ds", ("--", ":"), strict=True):
        own = predicted[predicted["law"] == law]
        if len(own):
            look: dict[str, Any] = {"color": "0.35", "marker": marker, "linestyle": line, "lw": 1, "mfc": "white"}
            newest = own[own["made"] == own["made"].max()]
            parts = [table[["images_seen", "n_star"]] for table in (known.iloc[-1:], newest)]
            points = pd.concat(parts).sort_values("images_seen")
            axes.plot(points["images_seen"], points["n_star"], line, color="0.35", lw=1)
            axes.errorbar(own["images_seen"], own["n_star"], _bars(own), capsize=3, **{**look, "linestyle": "none"})
            handles.append(Line2D([], [], label=f"predicted, {law} law", **look))
    axes.legend(handles=handles, fontsize=7, loc="upper left", framealpha=0.85)


def _bars(table: pd.DataFrame) -> Vector:
    """Error bars of n_star downward and upward, (2, rows), of no length where an end is not known."""
    return np.nan_to_num(np.clip([table["n_star"] - table["low"], table["high"] - table["n_star"]], 0, None))


def _colours(cells: pd.DataFrame) -> dict[int, Any]:
    """A colour for each N, from dark to light."""
    sizes = sorted(cells["n_train"].unique())
    return dict(zip(sizes, colormaps["viridis"](np.linspace(0, 0.88, len(sizes))), strict=True))


def _draw_samples(axes: Axes, cells: pd.DataFrame) -> None:
    """Of N ≥ 2, the excess and the memorised fraction against images seen."""
    sampled = cells[cells["memorised"].notna()]
    handles = [
        Line2D([], [], color="0.3", marker="o", label="excess"),
        Line2D([], [], color="0.3", marker="s", linestyle="--", mfc="white", label="memorised"),
    ]
    for n, colour in _colours(sampled).items():
        group = sampled[sampled["n_train"] == n]
        axes.plot(group["images_seen"], group["excess"], "o-", color=colour, markersize=4)
        axes.plot(group["images_seen"], group["memorised"], "s--", color=colour, markersize=4, mfc="white")
        handles.append(Line2D([], [], color=colour, label=f"N = {n:,}"))
    axes.set_ylim(top=1.04)
    _logarithmic(axes, "images seen", "similarity of a pair; fraction of samples", of="x")
    axes.legend(handles=handles, fontsize=7, framealpha=0.85)
    axes.grid(alpha=0.3)


def _draw_times(axes: Axes, times: pd.DataFrame, exponents: pd.DataFrame) -> None:
    """τ of each trial, open triangles where it is a bound, and the power of N that was fitted."""
    bounds = times[times["bound"].notna()]
    for time, name, marker, colour in (
        ("tau_gen", "τ_gen", "o", style.COLOURS[0]),
        ("tau_mem", "τ_mem", "s", style.COLOURS[1]),
    ):
        known = times[times[time].notna()]
        exponent = exponents.loc[exponents["time"] == time, "exponent"].max()
        if math.isfinite(exponent):
            name += f" ∝ N^{round(exponent, 2) + 0.0:.2f}"
            fitted = known if time == "tau_gen" else known[~known["n_train"].isin(bounds["n_train"])]
            log_n, log_tau = np.log(fitted["n_train"]), np.log(fitted[time].astype(float))
            line = np.exp(log_tau.mean() + exponent * (log_n - log_n.mean()))
            axes.plot(fitted["n_train"], line, color=colour, linewidth=1)
        if len(known):
            axes.plot(known["n_train"], known[time], marker, color=colour, markersize=5, label=name)
    if len(bounds):
        at = [float(bound.removeprefix("> ")) for bound in bounds["bound"]]
        axes.plot(bounds["n_train"], at, "^", color=style.COLOURS[1], mfc="white", label="τ_mem beyond")
    _logarithmic(axes, "", "images seen", of="y")
    style.against_n(axes, times["n_train"])
    if len(times):
        axes.legend(fontsize=7, framealpha=0.85)
    axes.grid(alpha=0.3)


def _draw_collapse(axes: Axes, cells: pd.DataFrame, collapse: Collapse | None, threshold: float, gap: Gap) -> None:
    """The gap against images/N^q, at q = 1 where q was not found."""
    q = collapse.q if collapse and not collapse.bound else 1.0
    for n, colour in _colours(cells).items():
        group = cells[(cells["n_train"] == n) & (cells[gap.metric] > FLOOR)]
        axes.plot(group["images_seen"] / n**q, group[gap.metric], "o-", color=colour, markersize=3, label=f"N = {n:,}")
    axes.axhline(threshold, color="0.5", linewidth=1, linestyle="--")
    _logarithmic(axes, f"images seen / N^{q:.2f}", f"PSNR gap (dB), over {gap.average}")
    axes.set_ylim(bottom=threshold / 100)
    axes.legend(fontsize=7, framealpha=0.85)
    axes.grid(alpha=0.3)
