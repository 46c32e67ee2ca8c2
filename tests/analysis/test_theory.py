from collections.abc import Callable

import pandas as pd
import pytest
import torch
from gahb_analysis.theory import CEILING, NETWORK, figure, is_oracle, summary_table, theory_table

from gahb.denoising.analytic import DENOISERS
from gahb.denoising.psnr import SIGMAS
from gahb.tracking import lookup
from tests.helpers import Ended, Place

CPU = torch.device("cpu")


def table_of(place: Place, name: str) -> pd.DataFrame:
    model = place.model(name)
    return theory_table(model, model.held_out(place.context), CPU)


def test_the_excess_is_measured_from_the_best_that_does_not_know_the_clean_image(finished: Place) -> None:
    table = table_of(finished, "16x16-N64-A")
    assert len(table) == 2 * (1 + len(DENOISERS)) * len(SIGMAS)
    fair = table[~table["denoiser"].map(is_oracle)]
    assert (fair.groupby(["images", "sigma"])["excess"].min() == 0).all() and (fair["excess"] >= 0).all()
    assert table.loc[table["denoiser"].map(is_oracle), "excess"].isna().all()
    summary = summary_table(table).set_index("denoiser")
    assert summary.loc["empirical", "train_kl"] == pytest.approx(0, abs=0.1)  # the optimum, on the images it is of
    assert summary.loc["empirical", "test_kl"] > summary.loc["empirical", "train_kl"] + 10


def test_the_networks_curve_is_that_of_the_record_and_one_image_is_known_by_heart(finished: Place) -> None:
    table = table_of(finished, "16x16-N1-A")
    summary = summary_table(table).set_index("denoiser")
    metrics = lookup.find(finished.record, "16x16-N1-A").metrics
    for key in ("train_psnr", "test_psnr"):
        assert summary.loc[NETWORK, key] == pytest.approx(metrics[key], abs=1e-3)
    assert summary.loc[["empirical", "wiener"], "train_psnr"].tolist() == pytest.approx([CEILING] * 2)


def test_figure_has_the_curves_and_bounds_of_both_sets(finished: Place) -> None:
    table = table_of(finished, "16x16-N64-A")
    picture = figure(table, summary_table(table), "a title")
    assert [axes.get_title() for axes in picture.axes] == ["training images", "held-out images", "", ""]
    assert [len(axes.lines) for axes in picture.axes[:2]] == [2 + len(DENOISERS)] * 2
    assert [len(axes.patches) for axes in picture.axes[2:]] == [5, 5]


def test_theory_command(command: Callable[..., Ended], finished: Place) -> None:
    data = command("gahb-analyze", "theory", "16x16-N64-A", "--json", *finished.flags).json
    assert [row["denoiser"] for row in data["denoisers"]] == [NETWORK, *DENOISERS]
    (run,) = [r for r in lookup.analyses(finished.record, "tiny") if r.run_id == data["run_id"]]
    assert run.metrics["test_kl"] == pytest.approx(data["denoisers"][0]["test_kl"])
    names = {file.name for file in finished.record.artifacts(run.run_id).iterdir()}
    assert names == {"theory.csv", "summary.csv", "theory.png", "theory.svg"}
