from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from gahb_analysis.theory import CEILING, NETWORK, figure, summary_table, theory_table

from gahb.denoising.analytic import DENOISERS
from gahb.denoising.psnr import SIGMAS
from gahb.models.layers import Denoiser
from gahb.tracking import lookup
from tests.helpers import Ended, Place, Towards

CPU = torch.device("cpu")


def table_of(place: Place, name: str) -> pd.DataFrame:
    model = place.model(name)
    return theory_table(model, model.held_out(place.context), CPU)


def test_the_excess_is_measured_from_the_best_that_does_not_know_the_clean_image(finished: Place) -> None:
    model = finished.model("16x16-N64-A")
    held_out = model.held_out(finished.context)
    gray = replace(model, denoiser=Denoiser(Towards(torch.full((1, 16, 16), 0.3))))
    table = theory_table(gray, held_out, CPU)
    assert len(table) == 2 * (1 + len(DENOISERS)) * len(SIGMAS)
    mse = table.pivot(index=["images", "sigma"], columns="denoiser", values="mse")
    excess = table.pivot(index=["images", "sigma"], columns="denoiser", values="excess")
    oracles = ["oracle_dct", "oracle_wavelet"]
    least = mse.drop(columns=oracles).min(axis=1)
    assert (mse[oracles].min(axis=1) < least).any() and excess[oracles].isna().all(axis=None)
    for images, of in ((model.train_images[:32], "train"), (held_out, "test")):
        by_hand = np.square(images.double().numpy() / 255 - 0.3).sum(axis=(1, 2, 3)).mean()
        np.testing.assert_allclose(excess[NETWORK][of], by_hand - least[of], rtol=1e-5)
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
