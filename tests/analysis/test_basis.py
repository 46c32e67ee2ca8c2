from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from gahb_analysis import basis as question
from torch import Tensor, nn

from gahb.data.disks import Disks
from gahb.data.pixel_shuffling import shuffle
from gahb.errors import UserError
from gahb.models.layers import Denoiser
from gahb.tracking import lookup
from gahb.trial import Trial
from tests.helpers import TINY, Ended, Place

CPU = torch.device("cpu")


class Projection(Denoiser):
    """The projection on the span of orthonormal vectors (d, m)."""

    def __init__(self, net: nn.Module, vectors: Tensor) -> None:
        super().__init__(net)
        self.vectors = vectors

    def forward(self, y: Tensor) -> Tensor:
        return (y.flatten(1) @ self.vectors @ self.vectors.T).view_as(y)


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
    assert {file.name for file in folder.iterdir()} == {
        "basis.csv",
        "dimensions.csv",
        "basis.png",
        "basis.svg",
        "images",
    }
    for name, column in (("eigenvalues", "eigenvalue"), ("coefficients", "coefficient")):
        assert data[name] == [row[column] for row in data["basis"]]
    model, clean = (
        finished.model("16x16-N64-A"),
        question.held_out_image(finished.context, finished.model("16x16-N64-A"), 3),
    )
    noisy = clean + 0.2 * question.noise_at(3, clean)
    whole = torch.func.jacrev(model.denoiser)(noisy).detach().view(256, 256).double()
    assert data["singular_values"] == pytest.approx(torch.linalg.svdvals(whole).tolist(), abs=1e-4)
    assert "tangent_angles" not in data
    # an orthonormal basis keeps the image's norm
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
    found = finished.model("16x16-N1-A")
    optimum = replace(found, denoiser=Projection(found.denoiser.net, tangents))
    clean = (tangents @ torch.ones(5)).view(1, 1, 16, 16)
    answer = question.analyse(optimum, disks.dataset, clean, 7, 0.1, None, CPU)
    np.testing.assert_allclose(answer.table["eigenvalue"], [1] * 5 + [0] * 251, atol=1e-5)
    np.testing.assert_allclose(answer.dimensions["effective_dimension"], 5, rtol=1e-5)
    np.testing.assert_allclose(answer.dimensions["error"], answer.dimensions["error"][0], rtol=1e-2)  # ‖P z‖² at all σ
    assert answer.angles is not None and len(answer.angles) == 5 and answer.metrics()["largest_angle"] < 0.1
    assert question.analyse(found, disks.dataset, clean, 7, 0.1, 8, CPU).metrics()["largest_angle"] > 10
    shuffled = replace(disks.dataset, shuffled=True)
    assert question.analyse(found, shuffled, clean, 7, 0.1, 8, CPU).angles is None


def test_two_models_stand_in_one_picture(command: Callable[..., Ended], finished: Place) -> None:
    names = ["16x16-N64-A", "16x16-N64-B"]
    options = ("--vectors", "0,5:245:12,999", "--json", *finished.flags)
    data = command("gahb-analyze", "basis", *names, *options).json
    assert [row["name"] for row in data["runs"]] == names
    alone = command("gahb-analyze", "basis", names[1], *options).json
    assert data["runs"][1]["eigenvalues"] == alone["eigenvalues"] != data["runs"][0]["eigenvalues"]
    table = pd.read_csv(finished.record.artifacts(data["run_id"]) / "basis.csv")
    assert table.groupby("run").size().to_dict() == dict.fromkeys(names, 256)
    (run,) = [r for r in finished.record.runs("basis") if r.run_id == data["run_id"]]
    assert run.links == {lookup.find(finished.record, name).run_id for name in names}


def test_vectors_are_chosen_by_numbers_and_ranges() -> None:
    assert question.numbers("7") == [7]
    assert question.numbers("0:3,9") == [0, 1, 2, 3, 9]
    assert question.numbers("5:245:12") == list(range(5, 246, 12))
    for text in ("", "a", "1:2:3:4", "1:9:0", "-1", "3:1", "0:1000000000000000000000"):
        with pytest.raises(UserError, match="vectors "):
            question.numbers(text)


def test_shuffled_images_and_vectors_are_shown_with_their_pixels_in_place(finished: Place) -> None:
    found = finished.model("16x16-N64-A")
    clean = question.held_out_image(finished.context, found, 3)
    shuffled = torch.from_numpy(shuffle(clean.numpy()))
    unit = shuffled.flatten() / shuffled.norm()
    optimum = replace(found, denoiser=Projection(found.denoiser.net, unit[:, None]))
    answer = question.analyse(optimum, replace(found.trial.dataset, shuffled=True), shuffled, 3, 0.1, None, CPU, [0])
    torch.testing.assert_close(answer.clean, clean[0])
    torch.testing.assert_close(answer.vectors[0].float(), clean[0] / clean.norm())
    cosine = (answer.denoised * clean[0]).sum() / answer.denoised.norm() / clean.norm()
    assert float(cosine) == pytest.approx(1)


def test_tangent_vectors_stand_beside_the_vectors_that_match_them(finished: Place) -> None:
    disks = Trial.of({**TINY, "dataset": "disks", "n_train": 1})
    found = finished.model("16x16-N1-A")
    clean = torch.from_numpy(Disks().tangent_space(16, 7)).float().sum(1).view(1, 1, 16, 16)
    answer = question.analyse(found, disks.dataset, clean, 7, 0.1, None, CPU, range(300))
    assert answer.tangents.shape == (5, 1, 16, 16) and list(answer.vectors) == list(range(256))
    cosines = torch.stack([(t * answer.vectors[k]).sum() for k, t in enumerate(answer.tangents)])
    # the trace of the product with the closest basis is the sum of the cosines of the principal angles
    assert answer.angles is not None
    assert float(cosines.sum()) == pytest.approx(np.cos(np.deg2rad(answer.angles["angle"])).sum(), abs=1e-6)
    assert all((vector * clean[0]).sum() >= 0 for vector in answer.vectors.values())
    data = answer.data()
    assert data["tangent_angles"] == answer.angles["angle"].tolist() and len(data["singular_values"]) == 256
