from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from gahb_analysis import basis as question
from torch import Tensor

from gahb.data.disks import Disks
from gahb.models.layers import Denoiser
from gahb.tracking import lookup
from gahb.trial import Trial
from tests.helpers import TINY, Ended, Place

CPU = torch.device("cpu")


def test_basis_command(command: Callable[..., Ended], finished: Place) -> None:
    arguments = ("basis", "16x16-N64-A", "--image", "3", "--sigma", "0.2", "--json", *finished.flags)
    data = command("gahb-analyze", *arguments).json
    assert [row["k"] for row in data["basis"]] == list(range(256)) and not data["estimated"]
    values = [row["eigenvalue"] for row in data["basis"]]
    assert values == sorted(values, reverse=True) and values[0] == data["top_eigenvalue"]
    assert sum(values) == pytest.approx(data["effective_dimension"])
    dimensions = {row["sigma"]: row["effective_dimension"] for row in data["dimensions"]}
    assert dimensions.keys() == {*question.SIGMAS, 0.2} and dimensions[0.2] == data["effective_dimension"]
    (run,) = [r for r in finished.record.runs("basis") if r.run_id == data["run_id"]]
    assert run.tags["gahb.of.0"] == lookup.find(finished.record, "16x16-N64-A").run_id
    assert run.metrics["asymmetry"] == pytest.approx(data["asymmetry"])
    folder = finished.record.artifacts(run.run_id)
    assert {file.name for file in folder.iterdir()} == {"basis.csv", "dimensions.csv", "basis.png", "basis.svg"}
    # an orthonormal basis keeps the image's norm
    clean = question.held_out_image(finished.context, finished.model("16x16-N64-A"), 3)
    table = pd.read_csv(folder / "basis.csv")
    assert (table["coefficient"] ** 2).sum() == pytest.approx(float(clean.square().sum()), rel=1e-5)

    top = command("gahb-analyze", *arguments, "--top", "10").json
    assert top["estimated"]
    assert [row["eigenvalue"] for row in top["basis"]] == pytest.approx(values[:10], abs=1e-3)
    assert "estimated from random probes" in command("gahb-analyze", *arguments[:-5], "--top", "3", *finished.flags).out


def test_mistakes_are_told(command: Callable[..., Ended], finished: Place) -> None:
    for option, value, told in (("--image", "32", "32 held-out images"), ("--top", "256", "at most 255")):
        ended = command("gahb-analyze", "basis", "16x16-N1-A", option, value, *finished.flags)
        assert ended.code == 2 and told in ended.err and ended.err.count("\n") == 1


def test_projection_on_the_tangent_space_has_angles_0_and_error_m(finished: Place) -> None:
    disks = Trial.of({**TINY, "dataset": "disks", "n_train": 1})
    tangents = torch.from_numpy(Disks().tangent_space(16, 7)).float()

    class Projection(Denoiser):
        def forward(self, y: Tensor) -> Tensor:
            return (y.flatten(1) @ tangents @ tangents.T).view_as(y)

    found = finished.model("16x16-N1-A")
    optimum = replace(found, denoiser=Projection(found.denoiser.net))
    clean = (tangents @ torch.ones(5)).view(1, 1, 16, 16)
    answer = question.analyse(optimum, disks.dataset, clean, 7, 0.1, None, CPU)
    np.testing.assert_allclose(answer.table["eigenvalue"], [1] * 5 + [0] * 251, atol=1e-5)
    np.testing.assert_allclose(answer.dimensions["effective_dimension"], 5, rtol=1e-5)
    np.testing.assert_allclose(answer.dimensions["error"], answer.dimensions["error"][0], rtol=1e-2)  # ‖P z‖² at all σ
    assert answer.angles is not None and len(answer.angles) == 5 and answer.metrics()["largest_angle"] < 0.1
    assert question.analyse(found, disks.dataset, clean, 7, 0.1, 8, CPU).metrics()["largest_angle"] > 10
    shuffled = replace(disks.dataset, shuffled=True)
    assert question.analyse(found, shuffled, clean, 7, 0.1, 8, CPU).angles is None
