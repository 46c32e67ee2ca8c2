from collections.abc import Callable

import pandas as pd
import pytest
import torch
from gahb_analysis.adaptive_basis import SIGMAS, held_out_image, noise_at
from gahb_analysis.basis import numbers

from gahb.errors import UserError
from gahb.tracking import lookup
from tests.helpers import Ended, Place


def test_basis_command(command: Callable[..., Ended], finished: Place) -> None:
    arguments = ("basis", "16x16-N64-A", "--image", "3", "--sigma", "0.2", "--json", *finished.flags)
    data = command("gahb-analyze", *arguments).json
    assert [row["k"] for row in data["basis"]] == list(range(256)) and not data["estimated"]
    values = [row["eigenvalue"] for row in data["basis"]]
    assert values == sorted(values, reverse=True) and values[0] == data["top_eigenvalue"]
    assert sum(values) == pytest.approx(data["effective_dimension"])
    dimensions = {row["sigma"]: row["effective_dimension"] for row in data["dimensions"]}
    assert dimensions.keys() == {*SIGMAS, 0.2} and dimensions[0.2] == data["effective_dimension"]
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
        held_out_image(finished.context, finished.model("16x16-N64-A"), 3),
    )
    noisy = clean + 0.2 * noise_at(3, clean)
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
    assert numbers("7") == [7]
    assert numbers("0:3,9") == [0, 1, 2, 3, 9]
    assert numbers("5:245:12") == list(range(5, 246, 12))
    for text in ("", "a", "1:2:3:4", "1:9:0", "-1", "3:1", "0:1000000000000000000000"):
        with pytest.raises(UserError, match="vectors "):
            numbers(text)
