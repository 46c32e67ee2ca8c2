import math
from collections.abc import Callable

import pandas as pd
import pytest
from gahb_analysis.scaling import crossing, crossings, figure, scaling_table

from tests.conftest import Ended, Place


def table_of(gaps: dict[tuple[int, int], list[float]]) -> pd.DataFrame:
    """(resolution, N) → gaps of its trials."""
    rows = [
        {
            "curve": f"{r}×{r}", "resolution": r, "n_train": n, "subset": "AB"[i % 2], "seed": i // 2,
            "train_psnr": 20 + gap, "test_psnr": 20.0, "psnr_gap": gap,
        }
        for (r, n), values in gaps.items()
        for i, gap in enumerate(values)
    ]  # fmt: skip
    return scaling_table(pd.DataFrame(rows))


def test_crossing_of_a_power_law_is_exact() -> None:
    sizes = [1, 10, 100, 1000]
    gaps = [20 * n**-0.7 for n in sizes]
    for threshold in (5.0, 1.0, 0.3):
        assert crossing(sizes, gaps, threshold) == pytest.approx((20 / threshold) ** (1 / 0.7))


def test_crossing_is_the_last_one_and_may_not_exist() -> None:
    assert crossing([1, 10, 100, 1000], [2, 0.5, 2, 0.5], 1.0) == pytest.approx(100 * 10**0.5)
    assert math.isnan(crossing([1, 10], [0.5, 0.1], 1.0))
    assert math.isnan(crossing([1, 10], [5, 2], 1.0))
    assert crossing([10, 100], [10, -0.2], 1.0) < 100


def test_spread_is_over_subsets_and_seeds() -> None:
    table = table_of({(20, 1): [4.0, 6.0], (20, 10): [1.0, 1.0], (40, 1): [8.0, 8.0, 8.0]})
    assert table[["resolution", "n_train", "psnr_gap", "gap_min", "gap_max", "trials"]].values.tolist() == [
        [20, 1, 5, 4, 6, 2],
        [20, 10, 1, 1, 1, 2],
        [40, 1, 8, 8, 8, 3],
    ]
    assert table["gap_sd"][0] == pytest.approx(2**0.5)


def test_figure_has_a_curve_for_each_resolution_on_logarithmic_axes() -> None:
    table = table_of({(r, n): [10 / n * r / 20, 9 / n * r / 20] for r in (20, 40) for n in (1, 10, 100)})
    picture = figure(table, crossings(table, 1.0))
    (axes,) = picture.axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_legend_handles_labels()[1] == ["1 dB", "20×20", "40×40"]


def test_scaling_command(command: Callable[..., Ended], finished: Place) -> None:
    data = command("gahb-analyze", "scaling", "tiny", "--threshold", "3", "--json", *finished.flags).json
    assert [(row["resolution"], row["n_train"], row["trials"]) for row in data["scaling"]] == [(16, 1, 2), (16, 64, 2)]
    (star,) = data["crossings"]
    assert 1 < star["n_star"] < 64
    (run,) = [r for r in finished.record._search("tags.`gahb.kind` = 'scaling'") if r.run_id == data["run_id"]]
    names = {file.name for file in finished.record.artifacts(run.run_id).iterdir()}
    assert names == {"scaling.csv", "crossings.csv", "trials.csv", "scaling.png", "scaling.svg"}
    ended = command("gahb-analyze", "scaling", "tiny", *finished.flags)
    assert "the gap falls below 1 dB" in ended.out and "mlflow ui --backend-store-uri" in ended.err
