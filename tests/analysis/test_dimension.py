from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from gahb_analysis import dimension
from gahb_analysis.adaptive_basis import SIGMAS
from matplotlib.figure import Figure
from torch import Tensor

from gahb.data.disks import Disks
from gahb.trial import Trial
from tests.helpers import TINY, Ended, Place


def tangents() -> Tensor:
    return torch.from_numpy(Disks().tangent_space(16, 7))


def rotation(d: int) -> Tensor:
    return torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]


def test_the_optimum_on_a_manifold_keeps_m_dimensions_and_none_outside() -> None:
    t = tangents()
    found = dimension.measures(t @ t.T, t)
    assert found["effective_dimension"] == pytest.approx(5) and found["above_half"] == 5
    assert found["asymmetry"] == pytest.approx(0) and found["negative_part"] == pytest.approx(0, abs=1e-7)
    assert found["outside"] == pytest.approx(0, abs=1e-12)


def test_what_is_added_outside_the_tangent_space_is_told_with_its_share() -> None:
    t, q = tangents(), rotation(256)
    v = q[:, 0] - t @ (t.T @ q[:, 0])
    v = v / v.norm()
    found = dimension.measures(t @ t.T + 0.75 * torch.outer(v, v), t)
    assert found["outside"] == pytest.approx(0.75**2 / (5 + 0.75**2))
    assert found["effective_dimension"] == pytest.approx(5.75) and found["above_half"] == 6
    leak = torch.outer(t[:, 0], v)  # noise along v leaves as a tangent
    assert dimension.measures(t @ t.T + leak, t)["outside"] == pytest.approx(1 / 6)


def test_negative_part_and_asymmetry_of_a_known_matrix() -> None:
    q = rotation(4)
    j = q @ torch.diag(torch.tensor([2.0, 1.0, 0.0, -2.0]).double()) @ q.T
    assert dimension.measures(j, None) == {
        "effective_dimension": pytest.approx(1),
        "above_half": 2,
        "asymmetry": pytest.approx(0, abs=1e-12),
        "negative_part": pytest.approx(2 / 3),
    }
    turned = torch.tensor([[1.0, 1.0], [-1.0, 1.0]]).double()
    assert dimension.measures(turned, None)["asymmetry"] == pytest.approx(2 / 2**0.5)


def test_cosines_are_low_or_high_and_noise_has_a_sixteenth() -> None:
    k = torch.arange(16).double()

    def cosine(a: int, b: int) -> Tensor:
        wave = torch.outer(*(torch.cos(torch.pi * f * (k + 0.5) / 16) for f in (a, b))).flatten()
        return wave / wave.norm()

    def share(*vectors: Tensor) -> float:
        return dimension.low_share(sum(torch.outer(v, v) for v in vectors).numpy())  # type: ignore[union-attr]

    assert share(cosine(2, 1)) == pytest.approx(1)
    assert share(cosine(15, 15)) == pytest.approx(0, abs=1e-12)
    assert share(cosine(2, 1), cosine(15, 15), cosine(0, 9)) == pytest.approx(1 / 3)
    assert dimension.low_share(np.eye(256)) == pytest.approx(1 / 16)
    q = rotation(256)[:, :100]
    assert dimension.low_share((q @ q.T).numpy()) == pytest.approx(1 / 16, rel=0.1)
    # outside vectors, weighted: one vector of eigenvalue 1 at a low and one of 1/2 at a high frequency
    both = torch.outer(cosine(2, 1), cosine(2, 1)) + 0.5 * torch.outer(cosine(9, 9), cosine(9, 9))
    tangent = cosine(0, 1)[:, None]
    assert dimension.measures(both + tangent @ tangent.T, tangent)["harmonic"] == pytest.approx(1 / 1.25)


def test_the_interval_is_of_the_mean_over_images() -> None:
    values = np.random.default_rng(1).normal(3, 2, 400)
    table = pd.DataFrame({"image": range(400), "sigma": 0.1, "asymmetry": values})
    (row,) = dimension.summary_table(table).to_dict("records")
    assert row["quantity"] == "asymmetry" and row["mean"] == pytest.approx(values.mean())
    half = 1.96 * values.std() / 400**0.5  # of a normal mean
    assert row["high"] - row["mean"] == pytest.approx(half, rel=0.15)
    assert row["mean"] - row["low"] == pytest.approx(half, rel=0.15)


@pytest.mark.parametrize("least", [0.5, -20.0])
def test_the_picture_shows_values_below_zero_and_else_starts_there(least: float) -> None:
    rows = pd.DataFrame(
        {"sigma": [0.5, 0.02], "quantity": "asymmetry", "mean": [least + 1, 9], "low": least, "high": 10}
    )
    axes = Figure().subplots()
    dimension.draw(axes, rows, "asymmetry")
    bottom = axes.get_ylim()[0]
    assert bottom < least if least < 0 else bottom == 0


def test_dimension_command(command: Callable[..., Ended], ray_here: None, place: Place) -> None:
    place.launch([Trial.of({**TINY, "dataset": "disks", "n_train": 32, "images": 3200})])
    data = command("gahb-analyze", "dimension", "16x16-N32-A", "--images", "3", "--json", *place.flags).json
    rows = pd.DataFrame(data["dimension"])
    assert len(rows) == 3 * len(SIGMAS) and set(rows["sigma"]) == set(SIGMAS)
    assert {"outside", "harmonic"} < set(rows) and rows["outside"].between(0, 1).all()
    for row in data["summary"]:
        assert row["mean"] == pytest.approx(rows[rows["sigma"] == row["sigma"]][row["quantity"]].mean())
        assert row["low"] <= row["mean"] <= row["high"]
    # one image's row is what `basis` finds there
    basis = command("gahb-analyze", "basis", "16x16-N32-A", "--image", "2", "--sigma", "0.2", "--json", *place.flags)
    (row,) = [row for row in data["dimension"] if row["image"] == 2 and row["sigma"] == 0.2]
    for key in ("effective_dimension", "asymmetry"):
        assert row[key] == pytest.approx(basis.json[key], rel=1e-5)
    assert row["above_half"] == sum(value > 0.5 for value in basis.json["eigenvalues"])
    (run,) = place.record.runs("dimension")
    names = {file.name for file in place.record.artifacts(run.run_id).iterdir()}
    assert names == {"dimension.csv", "summary.csv", "dimension.png", "dimension.svg", "images"}
    ended = command("gahb-analyze", "dimension", "16x16-N32-A", "--images", "33", *place.flags)
    assert ended.code == 2 and "32 held-out images" in ended.err and ended.err.count("\n") == 1
