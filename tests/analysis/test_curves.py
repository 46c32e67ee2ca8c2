import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from gahb_analysis.curves import (
    REFERENCE_IMAGES,
    WEAK_NOISE,
    curve_names,
    curves_table,
    figure,
    line,
    optimum,
    reference,
    slopes_table,
)
from numpy.typing import NDArray

from gahb.data.c_alpha import CAlpha
from gahb.data.dataset import Dataset
from gahb.data.disks import Disks
from gahb.data.image_files import ImageFiles
from gahb.data.image_ray import ImageRay
from gahb.data.intensity import unit
from gahb.data.manifold import Manifold
from gahb.data.sinusoids import Sinusoids
from gahb.denoising.bandlets import BandletOracle
from gahb.denoising.psnr import INPUT_PSNR, SIGMAS, psnr
from gahb.errors import UserError
from gahb.grids import grid
from gahb.tracking.run import Run
from gahb.trial import Trial
from tests.helpers import TINY, Ended, Place


@dataclass(frozen=True)
class Segment(Manifold):
    """A manifold that gahb does not know: images of one gray."""

    name: ClassVar[str] = "segment"
    dimension: ClassVar[int] = 1

    def parameters(self, resolution: int, index: int) -> NDArray[np.float64]:
        return np.linspace(0, 1, 64)[:, None]

    def draw(self, resolution: int, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        return parameters[:, :, None] * np.ones((resolution, resolution))


LEVELS = np.array(INPUT_PSNR, float)


def finished_run(trial: Trial) -> Run:
    return Run(f"{hash(trial):x}", "1", "", "finished", {"gahb.trial": json.dumps(trial.flat())}, {}, {}, "")


def write_curve(folder: Path, test_psnr: np.ndarray, **columns: object) -> Path:
    folder.mkdir()
    rows = {"sigma": SIGMAS, "input_psnr": INPUT_PSNR, "train_psnr": LEVELS + 10, "test_psnr": test_psnr, **columns}
    pd.DataFrame(rows).to_csv(folder / "psnr_curve.csv", index=False)
    return folder


def test_slope_of_a_power_law_is_exact_and_strong_noise_does_not_matter() -> None:
    output = np.where(LEVELS < 20, 12.0, 8 + 0.75 * LEVELS)
    assert line(LEVELS, output, WEAK_NOISE) == (pytest.approx(0.75), pytest.approx(8))
    assert line(LEVELS, output, (0, 18)) == (pytest.approx(0), pytest.approx(12))
    with pytest.raises(UserError, match="holds 1 of the noise levels"):
        line(LEVELS, output, (20, 22))


def test_the_optimum_is_the_one_of_the_data_set() -> None:
    for alpha, slope in ((1.0, 0.5), (2.0, 2 / 3), (3.0, 0.75), (5.0, 5 / 6)):
        assert optimum(Dataset(CAlpha(alpha), 40))[0] == pytest.approx(slope)
    z = np.random.default_rng(0).standard_normal((200_000, 5))
    for source, dimension in ((Disks(), 5), (Sinusoids(), 2), (ImageRay(), 1), (Segment(), 1)):
        slope, intercept = optimum(Dataset(source, 20))
        mse = 1e-3 * np.square(z[:, :dimension]).sum(axis=1) / 400  # the noise along the manifold is what stays
        assert slope * 30 + intercept == pytest.approx(-10 * np.log10(mse).mean(), abs=0.05)
    for dataset in (Dataset(ImageFiles("/data/faces.zip"), 20), Dataset(CAlpha(2.0), 20, shuffled=True)):
        assert reference(dataset, WEAK_NOISE) == {"reference": None, "reference_slope": None}
    assert all(math.isnan(value) for value in optimum(Dataset(ImageFiles("/data/faces.zip"), 20)))


def test_the_optimum_follows_the_lesser_regularity() -> None:
    assert optimum(Dataset(CAlpha(4.0, background_alpha=1.0), 40))[0] == pytest.approx(1 / 2)
    assert optimum(Dataset(CAlpha(1.0, background_alpha=4.0), 40))[0] == pytest.approx(1 / 2)


def test_the_reference_is_the_slope_of_the_bandlet_oracle_on_images_of_the_same_law() -> None:
    slopes = {}
    for alpha in (1.0, 3.0, 5.0):
        dataset = Dataset(CAlpha(alpha), 20)
        found = reference(dataset, (20, 34))
        assert found["reference"] == "oracle in the best bandlet basis" and found == reference(dataset, (20, 34))
        slopes[alpha] = found["reference_slope"]
        x = unit(torch.from_numpy(dataset.source.chunk(20, 0)[:REFERENCE_IMAGES]))[:, None]
        by_level = []
        for level in (21, 33):
            sigma = 10 ** (-level / 20)
            y = x + sigma * torch.randn(20, *x.shape, generator=torch.Generator().manual_seed(level))
            oracle = BandletOracle().at(sigma, x)
            by_level.append(torch.stack([psnr(x, oracle(each)) for each in y]).mean().item())
        assert slopes[alpha] == pytest.approx((by_level[1] - by_level[0]) / 12, abs=0.03)
    assert slopes[3.0] < slopes[5.0]
    assert slopes[1.0] > 0.55  # 1/2 is of σ → 0 on ever finer pixels: 20×20 of them are soon all above the noise
    assert reference(Dataset(Disks(), 20), WEAK_NOISE) == {
        "reference": "projection on the tangent space", "reference_slope": 1.0,
    }  # fmt: skip


def test_curves_are_named_by_what_tells_them_apart() -> None:
    both = {**TINY, "subset": ("A", "B"), "seed": (0, 1)}
    assert set(curve_names(grid({**both, "n_train": 4}))) == {"N = 4"}
    assert set(curve_names(grid({**both, "n_train": (1, 4)}))) == {"N = 1", "N = 4"}
    assert set(curve_names(grid({**both, "n_train": 4, "alpha": (1.0, 2.5)}))) == {"α = 1", "α = 2.5"}
    sets = grid({**both, "n_train": 4, "dataset": ("c_alpha", "/data/faces.zip")})
    assert set(curve_names(sets)) == {"c_alpha", "faces"}
    assert set(curve_names(grid({**both, "n_train": 4, "shuffled": (False, True)}))) == {"shuffled", "not shuffled"}
    named = curve_names(grid({**both, "n_train": (1, 4), "resolution": (8, 16)}))
    assert set(named) == {f"{r}×{r}, N = {n}" for r in (8, 16) for n in (1, 4)}


def test_slopes_are_of_the_mean_over_subsets_and_of_the_last_curve(tmp_path: Path) -> None:
    trials = grid({**TINY, "n_train": 4, "alpha": (3.0, 1.0), "subset": ("A", "B")})
    runs = [finished_run(trial) for trial in trials]
    folders = [write_curve(tmp_path / str(i), 10 + (0.4 + 0.1 * i) * LEVELS) for i in range(3)]
    early, late = LEVELS * 0, 10 + 0.7 * LEVELS
    folder = write_curve(tmp_path / "3", late, images_seen=200)
    last = pd.read_csv(folder / "psnr_curve.csv")
    pd.concat([last.assign(images_seen=100, test_psnr=early), last]).to_csv(folder / "psnr_curve.csv", index=False)

    table = curves_table(runs, [*folders, folder])
    assert len(table) == 4 * len(LEVELS) and not table.isna().any().any()
    slopes = slopes_table(table, runs, WEAK_NOISE)
    assert slopes["curve"].tolist() == ["α = 1", "α = 3"] and slopes["trials"].tolist() == [2, 2]
    np.testing.assert_allclose(slopes["test_slope"], [0.65, 0.45])
    np.testing.assert_allclose(slopes["train_slope"], 1)
    np.testing.assert_allclose(slopes["train_intercept"], 10)
    train, test = figure(table, slopes).axes
    assert (train.get_title(), test.get_title()) == ("Train", "Test")
    np.testing.assert_allclose(test.lines[2].get_ydata(), 10 + 0.45 * LEVELS)
    assert train.get_legend_handles_labels()[1] == [
        "identity",
        *(
            f"α = {alpha:g}: {slope:.2f} (optimum {optimal:.2f}, reference {reference:.2f})"
            for alpha, slope, optimal, reference in (
                (1, 0.65, 0.5, slopes["reference_slope"][0]), (3, 0.45, 0.75, slopes["reference_slope"][1]),
            )
        ),
    ]  # fmt: skip
    dashed = test.lines[3:]
    assert len(dashed) == len(slopes)
    for drawn, slope, optimal in zip(dashed, (0.65, 0.45), (0.5, 0.75), strict=True):
        x, y = drawn.get_xdata(), drawn.get_ydata()
        assert (x[0], x[-1]) == (21, 33) and y[0] == pytest.approx(10 + slope * 21)
        assert (y[-1] - y[0]) / 12 == pytest.approx(optimal)


def test_a_manifolds_optimum_is_drawn_at_its_own_height(tmp_path: Path) -> None:
    (trial,) = grid({**TINY, "dataset": "disks", "n_train": 4})
    run = finished_run(trial)
    table = curves_table([run], [write_curve(tmp_path / "0", 10 + 0.7 * LEVELS)])
    slopes = slopes_table(table, [run], WEAK_NOISE)
    *_, dashed = figure(table, slopes).axes[1].lines
    assert dashed.get_ydata()[0] == pytest.approx(21 + slopes["optimal_intercept"][0])


def test_curves_command(command: Callable[..., Ended], finished: Place) -> None:
    data = command("gahb-analyze", "curves", "tiny", "--json", *finished.flags).json
    assert [row["curve"] for row in data["slopes"]] == ["N = 1", "N = 64"]
    assert len(data["curves"]) == 4 * len(INPUT_PSNR)
    for row in data["slopes"]:
        assert row["optimal_slope"] == pytest.approx(2 / 3)
        assert row["reference"] == "oracle in the best bandlet basis" and 0.4 < row["reference_slope"] < 1
    (run,) = [r for r in finished.record.runs("curves") if r.run_id == data["run_id"]]
    names = {file.name for file in finished.record.artifacts(run.run_id).iterdir()}
    assert names == {"curves.csv", "slopes.csv", "curves.png", "curves.svg", "images"}
    assert "at 20 to 34 dB" in command("gahb-analyze", "curves", "tiny", *finished.flags).out
