from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from gahb_analysis.memorization import fraction_interval, memorised, times

from gahb.models.layers import Denoiser
from gahb.tracking import lookup
from tests.helpers import Ended, Place, Towards


def test_a_copy_is_memorised_and_a_mixture_is_not() -> None:
    images = torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8)
    copy, mixture = images[2:3].float() / 255, images[:2].float().mean(dim=0, keepdim=True) / 255
    assert memorised(Denoiser(Towards(copy)), images, 5, 0, torch.device("cpu")).tolist() == [True] * 5
    assert memorised(Denoiser(Towards(mixture)), images, 5, 0, torch.device("cpu")).tolist() == [False] * 5


def test_the_interval_of_the_fraction_is_that_of_a_binomial() -> None:
    low, high = fraction_interval(np.arange(400) % 4 == 0)
    half = 1.96 * (0.25 * 0.75 / 400) ** 0.5
    assert (low, high) == (pytest.approx(0.25 - half, abs=0.01), pytest.approx(0.25 + half, abs=0.01))
    z2 = 1.959964**2
    assert fraction_interval(np.zeros(64, bool)) == (0, pytest.approx(z2 / (64 + z2))), "none seen is not none there"
    assert fraction_interval(np.ones(64, bool)) == (pytest.approx(64 / (64 + z2)), 1)
    assert np.isnan(fraction_interval(np.ones(0, bool))).all()


def test_times_are_when_the_curves_cross() -> None:
    history = pd.DataFrame(
        {
            "run_id": "r", "name": "x", "n_train": 4, "images_seen": [1, 2, 4, 8, 16], "samples": 10,
            "memorised": [0, 0, 0.2, 0.6, 0.9], "low": 0.0, "high": 1.0,
            "test_psnr": [10, 14.8, 15, 14, 12], "train_psnr": 20.0,
        }
    )  # fmt: skip
    (row,) = times(history).to_dict("records")
    assert (row["tau_gen"], row["tau_mem"], row["memorised"]) == (2, 8, 0.9)
    (row,) = times(history.assign(memorised=0.1)).to_dict("records")
    assert np.isnan(row["tau_mem"])


def test_memorization_command(command: Callable[..., Ended], finished: Place) -> None:
    ended = command("gahb-analyze", "memorization", "tiny", "--samples", "4", "--json", *finished.flags)
    rows = ended.json["memorization"]
    assert [row["n_train"] for row in rows] == [64, 64]  # N = 1 has no second image
    (run,) = [r for r in lookup.analyses(finished.record, "tiny") if r.run_id == ended.json["run_id"]]
    history = pd.read_csv(finished.record.artifacts(run.run_id) / "history.csv")
    steps = [step for step, _ in finished.record.history(history["run_id"][0], "loss")]
    assert sorted(history["images_seen"].unique()) == steps
