from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from gahb_analysis.theory import (
    CEILING,
    IMAGES,
    NETWORK,
    SETS,
    exponents_table,
    figure,
    is_oracle,
    summary_table,
    terms_figure,
    terms_table,
    terms_window,
    theory_table,
)

from gahb.data.intensity import unit
from gahb.denoising.psnr import INPUT_PSNR, SIGMAS, average_over_sigma, mean_psnr
from gahb.denoising.references import DENOISERS
from gahb.models.layers import Denoiser
from gahb.tracking import lookup
from tests.helpers import Ended, Place, Towards

CPU = torch.device("cpu")


def table_of(place: Place, name: str, names: Iterable[str]) -> pd.DataFrame:
    model = place.model(name)
    return theory_table(model, model.held_out(place.context), CPU, names)


def test_the_excess_is_measured_from_the_best_that_does_not_know_the_clean_image(finished: Place) -> None:
    model = finished.model("16x16-N64-A")
    held_out = model.held_out(finished.context)
    names = ["empirical", "wiener", "threshold_wavelet", "oracle_wavelet", "oracle_bandlet"]
    gray = replace(model, denoiser=Denoiser(Towards(torch.full((1, 16, 16), 0.3))))
    table = theory_table(gray, held_out, CPU, names)
    assert len(table) == 2 * 6 * len(SIGMAS)
    mse = table.pivot(index=["images", "sigma"], columns="denoiser", values="mse")
    excess = table.pivot(index=["images", "sigma"], columns="denoiser", values="excess")
    oracles = ["oracle_wavelet", "oracle_bandlet"]
    least = mse.drop(columns=oracles).min(axis=1)
    assert (mse[oracles].min(axis=1) < least).any() and excess[oracles].isna().all(axis=None)
    for images, of in ((model.train_images[:IMAGES], "train"), (held_out[:IMAGES], "test")):
        by_hand = np.square(unit(images).double().numpy() - 0.3).sum(axis=(1, 2, 3)).mean()
        np.testing.assert_allclose(excess[NETWORK][of], by_hand - least[of], rtol=1e-5)
    summary = summary_table(table).set_index("denoiser")
    assert summary.loc["empirical", "train_kl"] == pytest.approx(0, abs=0.1)  # the optimum, on the images it is of
    assert summary.loc["empirical", "test_kl"] > summary.loc["empirical", "train_kl"] + 10


def test_the_networks_curve_is_the_psnr_curve_and_one_image_is_known_by_heart(finished: Place) -> None:
    table = table_of(finished, "16x16-N1-A", ("empirical", "wiener"))
    summary = summary_table(table).set_index("denoiser")
    model = finished.model("16x16-N1-A")
    for key, images in (("train_psnr", model.train_images), ("test_psnr", model.held_out(finished.context))):
        curve = mean_psnr(model.denoiser, images, IMAGES)
        assert summary.loc[NETWORK, key] == pytest.approx(average_over_sigma(curve), abs=1e-3)
    assert summary.loc[["empirical", "wiener"], "train_psnr"].tolist() == pytest.approx([CEILING] * 2)


def test_figure_has_the_curves_and_the_excess_of_both_sets() -> None:
    rows = [
        (of, name, sigma, level, level + 5.0, 256 * sigma**2, 0.0)
        for of in SETS
        for name in (NETWORK, *DENOISERS)
        for sigma, level in zip(SIGMAS, INPUT_PSNR, strict=True)
    ]
    table = pd.DataFrame(rows, columns=["images", "denoiser", "sigma", "input_psnr", "psnr", "mse", "excess"])
    table.loc[table["denoiser"].map(is_oracle), "excess"] = np.nan
    picture = figure(table, summary_table(table), "a title")
    assert [axes.get_title() for axes in picture.axes] == ["training images", "held-out images", "", ""]
    assert [len(axes.lines) for axes in picture.axes[:2]] == [2 + len(DENOISERS)] * 2
    assert [len(axes.patches) for axes in picture.axes[2:]] == [6, 6]


def test_terms_are_of_orthonormal_bases_and_bandlets_need_the_fewest(finished: Place) -> None:
    model = finished.model("16x16-N64-A")
    held_out = model.held_out(finished.context)[:4]
    table = terms_table(model, held_out, CPU)
    total = unit(held_out).square().sum(dim=(1, 2, 3)).mean().item()
    for basis, group in table.groupby("basis"):
        assert (group["error"].diff().dropna() <= 1e-9).all() and (group["energy"].diff().dropna() <= 0).all(), basis
        assert group["error"].iloc[-1] == pytest.approx(0, abs=1e-4 * total)
        first = group.iloc[0]
        if basis != "bandlet":  # whose basis is another for each M
            assert first["error"] + first["energy"] == pytest.approx(total, rel=1e-5)
    errors = table.pivot(index="terms", columns="basis", values="error")
    assert (errors.loc[9:64, "bandlet"] < errors.loc[9:64, ["wavelet", "dct"]].min(axis=1)).all()


def test_exponents_are_those_of_the_power_laws() -> None:
    m = np.arange(1, 257)
    table = pd.DataFrame({"basis": "dct", "terms": m, "error": 3.0 * m**-2.0, "energy": 5.0 * m**-3.0})
    window = terms_window(256)
    (row,) = exponents_table(table, window).to_dict("records")
    assert (row["error_exponent"], row["coefficient_exponent"]) == (pytest.approx(2), pytest.approx(3))
    assert len(terms_figure(table, window, "a title").axes) == 2


def test_theory_command(command: Callable[..., Ended], finished: Place) -> None:
    data = command("gahb-analyze", "theory", "16x16-N64-A", "--json", *finished.flags).json
    assert [row["denoiser"] for row in data["denoisers"]] == [NETWORK, *DENOISERS]
    (run,) = [r for r in lookup.analyses(finished.record, "tiny") if r.run_id == data["run_id"]]
    assert run.metrics["test_kl"] == pytest.approx(data["denoisers"][0]["test_kl"])
    names = {file.name for file in finished.record.artifacts(run.run_id).iterdir()}
    tables = {"theory.csv", "summary.csv", "terms.csv", "exponents.csv"}
    assert names == {*tables, "theory.png", "theory.svg", "terms.png", "terms.svg", "images"}
    assert [row["basis"] for row in data["exponents"]] == [NETWORK, "bandlet", "wavelet", "dct"]
    assert run.metrics["error_exponent"] == pytest.approx(data["exponents"][0]["error_exponent"])
    assert data["reference"] == "oracle in the best bandlet basis" and 0.3 < data["reference_slope"] < 1
