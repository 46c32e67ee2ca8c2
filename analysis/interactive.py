"""The figures of a report that answer the mouse, by plotly: Figure 15, PSNR curves, the histograms of pairs.

Each is a function of the tables that its analysis keeps, by their file stems, and shows what its picture shows. The
page gives them their colours, which are the reader's, light or dark.
"""

import html
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import plotly.express as px
from plotly.graph_objects import Figure

from gahb.denoising.levels import Gap
from gahb.figures import style

from .scaling import FLOOR, in_words

Tables = Mapping[str, pd.DataFrame]

COLOURS = [colour for colour in style.COLOURS if colour != "#000000"]
"""Those of the pictures, without black, which a dark page hides."""

LABELS = {
    "n_train": "training images N",
    "input_psnr": "input PSNR (dB)",
    "output_psnr": "output PSNR (dB)",
    "train_psnr": "train PSNR (dB)",
    "test_psnr": "test PSNR (dB)",
    "sigma": "σ",
    "cosine": "cosine similarity",
    "samples": "samples",
}

BINS = 40
"""Of a histogram."""


def scaling(tables: Tables) -> Figure:
    """Figure 15: the PSNR gap against N, with N*."""
    table, stars = _named(tables["scaling"]), _named(tables["crossings"])
    kind, threshold = Gap(stars["gap"].iloc[0]), float(stars["threshold_db"].iloc[0])
    table = table.assign(gap=table[kind.metric].clip(lower=FLOOR))
    low = table["gap_min"].where(table["gap_min"] > FLOOR, table["gap"])
    figure = px.line(
        table.assign(more=table["gap_max"].clip(lower=FLOOR) - table["gap"], less=table["gap"] - low),
        x="n_train",
        y="gap",
        error_y="more",
        error_y_minus="less",
        color="curve",
        symbol="curve",
        markers=True,
        log_x=True,
        log_y=True,
        hover_data={"train_psnr": ":.2f", "test_psnr": ":.2f", "gap": ":.3f", "trials": True},
        labels={**LABELS, "gap": f"PSNR gap (dB), averaged over {kind.average}"},
        color_discrete_sequence=COLOURS,
    )
    figure.add_hline(threshold, line={"dash": "dash", "width": 1, "color": "#999999"})
    found = stars[stars["n_star"].notna()]
    figure.add_scatter(
        x=found["n_star"],
        y=[threshold] * len(found),
        mode="markers",
        marker={"symbol": "star", "size": 13, "color": "#E69F00"},
        name="N*",
        text=in_words(table, found, _named(tables["trials"])),
        hovertemplate="%{text}<extra></extra>",
    )
    sizes = sorted(table["n_train"].unique())
    return figure.update_xaxes(tickvals=sizes, ticktext=[f"{n:,}" for n in sizes])


def curves(tables: Tables) -> Figure:
    """Figure 1: output against input PSNR, on training and on test images, means over subsets and seeds."""
    sets = {"train_psnr": "Train", "test_psnr": "Test"}
    table = _named(tables["curves"]).rename(columns=sets)
    long = table.melt(["curve", "input_psnr", "sigma"], list(sets.values()), "images", "output_psnr")
    means = long.groupby(["images", "curve", "input_psnr", "sigma"], sort=False, as_index=False).mean()
    figure = px.line(
        means,
        x="input_psnr",
        y="output_psnr",
        color="curve",
        facet_col="images",
        category_orders={"images": list(sets.values())},
        markers=True,
        hover_data={"sigma": ":.3f", "output_psnr": ":.2f", "images": False},
        labels=LABELS,
        color_discrete_sequence=COLOURS,
    )
    end = float(means["input_psnr"].max())
    line = {"dash": "dot", "width": 1, "color": "#999999"}
    figure.add_shape(type="line", x0=0, y0=0, x1=end, y1=end, line=line, row="all", col="all")
    return figure.for_each_annotation(lambda title: title.update(text=title.text.removeprefix("images=")))


def pairs(tables: Tables) -> Figure:
    """Figure 2: how alike the samples of two denoisers are, and each to its closest training image; a pair at each
    place of a slider."""
    samples = tables["samples"]
    samples = samples[samples["converged"]]
    columns = {"two denoisers, same noise": "cosine", "sample and closest training image": "closest_train"}
    low = min(0.0, float(samples[list(columns.values())].min().min()))
    edges = np.linspace(low, 1, BINS + 1)
    bars = [
        pd.DataFrame(
            {
                "pair": html.escape(str(pair)),
                "of": of,
                "cosine": (edges[:-1] + edges[1:]) / 2,
                "samples": np.histogram(group[column].dropna(), edges)[0],
            }
        )
        for pair, group in samples.groupby("pair", sort=False)
        for of, column in columns.items()
    ]
    table = pd.concat(bars)
    figure = px.bar(
        table,
        x="cosine",
        y="samples",
        color="of",
        animation_frame="pair",
        barmode="overlay",
        opacity=0.7,
        range_x=[low, 1 + (1 - low) / BINS],
        range_y=[0, table["samples"].max() * 1.05],
        hover_data={"cosine": ":.2f"},
        labels=LABELS,
        color_discrete_sequence=COLOURS,
    )
    figure.layout.updatemenus = None  # a slider is enough
    for slider in figure.layout.sliders:  # none of a single pair
        slider.update(x=0, len=1, currentvalue={"prefix": ""})
    return figure.update_traces(marker_line_width=0).update_layout(bargap=0)


FIGURES: Mapping[str, Callable[[Tables], Figure]] = {"scaling": scaling, "curves": curves, "pairs": pairs}
"""Kind of analysis → its figure."""

WHOLE = ("scaling", "curves")
"""The kinds whose figure shows what their picture is for, and stands in its place; others stand above it."""


def _named(table: pd.DataFrame) -> pd.DataFrame:
    """The table with its curves' names as plotly shows them letter by letter."""
    return table.assign(curve=table["curve"].astype(str).map(html.escape))
