import math
import re
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from gahb_analysis.scaling import FLOOR, crossing, crossings, figure, in_words, scaling_table

from gahb.denoising.levels import Gap
from tests.helpers import Ended, Place


def table_of(gaps: dict[tuple[int, int], list[float]]) -> pd.DataFrame:
    """(resolution, N) → gaps of its trials."""
    rows = [
        {
            "curve": f"{r}×{r}", "resolution": r, "parameters": 1000 * r, "n_train": n,
            "subset": "AB"[i % 2], "seed": i // 2,
            "train_psnr": 20 + gap, "test_psnr": 20.0, "psnr_gap": gap, "psnr_gap_db": 4 * gap,
        }
        for (r, n), values in gaps.items()
        for i, gap in enumerate(values)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_crossing_of_a_power_law_is_exact() -> None:
    sizes = [1, 10, 100, 1000]
    gaps = [20 * n**-0.7 for n in sizes]
    for threshold in (5.0, 1.0, 0.3):
        assert crossing(sizes, gaps, threshold) == pytest.approx((20 / threshold) ** (1 / 0.7))


def test_crossing_is_the_last_one_and_may_not_exist() -> None:
    assert crossing([1, 10, 100, 1000], [2, 0.5, 2, 0.5], 1.0) == pytest.approx(100 * 10**0.5)
    assert crossing([1, 10], [0.5, 0.1], 1.0) == 0
    assert crossing([1, 10], [5, 2], 1.0) == math.inf
    assert crossing([10, 100], [10, -0.2], 1.0) < 100


def test_spread_is_over_subsets_and_seeds() -> None:
    table = scaling_table(table_of({(20, 1): [4.0, 6.0], (20, 10): [1.0, 1.0], (40, 1): [8.0, 8.0, 8.0]}))
    assert table[["resolution", "n_train", "psnr_gap", "gap_min", "gap_max", "trials"]].values.tolist() == [
        [20, 1, 5, 4, 6, 2],
        [20, 10, 1, 1, 1, 2],
        [40, 1, 8, 8, 8, 3],
    ]
    assert table["gap_sd"][0] == pytest.approx(2**0.5)


def test_figure_has_a_curve_for_each_resolution_on_logarithmic_axes() -> None:
    trials = table_of({(r, n): [10 / n * r / 20, 9 / n * r / 20] for r in (20, 40) for n in (1, 10, 100)})
    picture = figure(scaling_table(trials), crossings(trials, 1.0))
    gaps, by_resolution, by_parameters = picture.axes
    assert {axes.get_xscale() + axes.get_yscale() for axes in picture.axes} == {"loglog"}
    assert gaps.get_legend_handles_labels()[1] == ["N* = 9.50", "N* = 19.0", "1 dB", "20×20", "40×40"]
    assert [tick.get_text() for tick in gaps.get_xticklabels()] == ["1", "10", "100"]
    assert (by_resolution.get_xlabel(), by_parameters.get_xlabel()) == ("pixels a side", "parameters")
    alone = trials[trials["resolution"] == 20]
    assert len(figure(scaling_table(alone), crossings(alone, 1.0)).axes) == 1


def test_no_bar_leads_to_a_gap_that_has_no_logarithm() -> None:
    trials = table_of({(20, 1): [8.0, 12.0], (20, 10): [-0.2, 0.4], (20, 100): [-0.5, 0.1]})
    (axes,) = figure(scaling_table(trials), crossings(trials, 1.0)).axes
    (bars,) = axes.containers
    ends = [segment[:, 1].tolist() for segment in bars.lines[2][0].get_segments()]
    assert ends == [pytest.approx(end) for end in ([8, 12], [0.1, 0.4], [FLOOR, 0.1])]


def test_sentences_say_where_the_gap_closes_and_on_what_the_interval_rests() -> None:
    sizes = (1, 10, 100, 1000)
    found = {
        1: "falls below 1 dB at N* = 20.0",
        2: "falls below 1 dB at N* = 20.5 (A and B: 20.0 … 21.0)",
        4: "falls below 1 dB at N* = 21.5 (95 % over 4 replicates: 20.5 … 22.5)",
    }
    for count, told in found.items():
        trials = table_of({(20, n): [(20 + i) / n for i in range(count)] for n in sizes})
        line = f"20×20: the gap averaged over σ {told}"
        assert in_words(scaling_table(trials), crossings(trials, 1.0), trials) == [line]


def test_the_interval_spans_the_replicates_and_is_open_where_one_does_not_cross() -> None:
    sizes = (1, 10, 100, 1000)
    one = crossings(table_of({(20, n): [20 / n] for n in sizes}), 1.0).iloc[0]
    assert one["n_star"] == pytest.approx(20) and one["replicates"] == 1 and math.isnan(one["low"])
    two = crossings(table_of({(20, n): [20 / n, 40 / n] for n in sizes}), 1.0).iloc[0]
    assert (two["low"], two["n_star"], two["high"]) == tuple(pytest.approx(n) for n in (20, 30, 40))
    flat = crossings(table_of({(20, n): [20 / n, 5.0] for n in sizes}), 2.0).iloc[0]
    assert flat["low"] == pytest.approx(10) and math.isnan(flat["high"])
    rng = np.random.default_rng(0)
    scales = 20 * np.exp(0.2 * rng.standard_normal(100))
    many = crossings(table_of({(20, n): [s / n for s in scales] for n in sizes}), 1.0).iloc[0]
    error = scales.std() / 10  # of the mean of 100
    assert many["high"] - many["low"] == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_either_gap_has_a_crossing_of_its_own() -> None:
    trials = table_of({(20, n): [20 / n, 20 / n] for n in (1, 10, 100, 1000)})
    for gap, n_star in ((Gap.SIGMA, 20), (Gap.DB, 80)):
        (star,) = crossings(trials, 1.0, gap).to_dict("records")
        assert star["n_star"] == pytest.approx(n_star) and star["gap"] == gap.value
        drawn = figure(scaling_table(trials, gap), crossings(trials, 1.0, gap)).axes[0]
        assert gap.average in drawn.get_ylabel()


def test_the_gap_that_an_older_version_did_not_log_is_that_of_its_curve(
    command: Callable[..., Ended], copied: Place
) -> None:
    logged = command("gahb-analyze", "scaling", "tiny", "--gap", "db", "--json", *copied.flags).json
    assert all(run.metrics["psnr_gap_db"] != run.metrics["psnr_gap"] for run in copied.record.runs("trial"))
    for table in ("metrics", "latest_metrics"):
        copied.execute(f"DELETE FROM {table} WHERE key = ?", "psnr_gap_db")
    assert not any("psnr_gap_db" in run.metrics for run in copied.record.runs("trial"))
    found = command("gahb-analyze", "scaling", "tiny", "--gap", "db", "--json", *copied.flags).json
    for before, after in zip(logged["scaling"], found["scaling"], strict=True):
        assert after == pytest.approx(before)
    (ours,), (theirs,) = found["crossings"], logged["crossings"]
    assert ours == pytest.approx(theirs) and ours["gap"] == "db"
    assert "psnr_gap_db" in command("gahb-sweep", "show", "16x16-N64-A", *copied.flags).out
    copied.artifact("16x16-N64-A", "psnr_curve.csv").write_text("sigma,input_psnr\n1,0\n")
    ended = command("gahb-analyze", "scaling", "tiny", *copied.flags)
    assert ended.code == 2 and "psnr_curve.csv of 16x16-N64-A" in ended.err


def test_scaling_command(command: Callable[..., Ended], finished: Place) -> None:
    data = command("gahb-analyze", "scaling", "tiny", "--threshold", "3", "--json", *finished.flags).json
    assert [(row["resolution"], row["n_train"], row["trials"]) for row in data["scaling"]] == [(16, 1, 2), (16, 64, 2)]
    (star,) = data["crossings"]
    assert 1 < star["n_star"] < 64
    (run,) = [r for r in finished.record.runs("scaling") if r.run_id == data["run_id"]]
    names = {file.name for file in finished.record.artifacts(run.run_id).iterdir()}
    assert names == {"scaling.csv", "crossings.csv", "trials.csv", "scaling.png", "scaling.svg", "images"}
    ended = command("gahb-analyze", "scaling", "tiny", *finished.flags)
    assert "the gap averaged over σ falls below 1 dB" in ended.out and re.search(
        "in MLflow: .*gahb-sweep ui tiny", ended.err
    )


@pytest.mark.parametrize(
    ("threshold", "told"),
    [("0.001", "still above 0.001 dB at the largest N (64)"), ("99", "below 99 dB already at the smallest N (1)")],
)
def test_where_the_gap_crosses_no_threshold_is_told(
    threshold: str, told: str, command: Callable[..., Ended], finished: Place
) -> None:
    out = command("gahb-analyze", "scaling", "tiny", "--threshold", threshold, *finished.flags).out
    assert out.splitlines()[-1] == f"16×16: the gap averaged over σ is {told}"
