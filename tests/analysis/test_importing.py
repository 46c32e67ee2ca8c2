from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from gahb_analysis.pair import draw_histograms
from matplotlib.figure import Figure

import gahb
from gahb.denoising import noise
from gahb.errors import UserError
from gahb.models import published
from gahb.tracking import lookup
from gahb.tracking.run import Kind
from gahb.trial import Trial
from tests.helpers import TINY, Ended, Payload, Place, bf_cnn, unet


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.save({f"module.{key}": tensor for key, tensor in unet(1, 4).items()}, tmp_path / "faces.pt")
    return tmp_path / "faces.pt"


def test_an_imported_model_is_a_finished_run_that_loads(
    command: Callable[..., Ended], place: Place, checkpoint: Path
) -> None:
    data = command("gahb-analyze", "import", str(checkpoint), "--json", *place.flags).json
    run = lookup.find(place.record, "faces")
    assert (run.run_id, run.state, run.imported) == (data["run_id"], "finished", True)
    assert run.params["architecture"] == "unet" and run.params["resolution"] == "20"
    loaded, y = gahb.load("faces", record=place.record.uri, storage=place.store.uri), torch.rand(2, 1, 20, 20)
    torch.testing.assert_close(loaded(y), published.read(checkpoint)[0](y), rtol=0, atol=0)
    assert place.record.runs(Kind.TRIAL) == [] and lookup.sweep_names(place.record) == []
    with pytest.raises(UserError, match="nothing is known of the images"):
        lookup.finished_trial(place.record, "faces")
    assert "faces" in command("gahb-sweep", "show", "faces", *place.flags).out


def test_importing_again_gives_the_same_run_and_a_name_is_taken_once(
    command: Callable[..., Ended], place: Place, checkpoint: Path
) -> None:
    def run(*arguments: str) -> Ended:
        return command("gahb-analyze", "import", str(checkpoint), *arguments, *place.flags)

    first = run("--json").json["run_id"]
    assert run("--json").json["run_id"] == first
    other = run("--resolution", "40")
    assert other.code == 2 and "choose another name with --as" in other.err
    assert run("--resolution", "40", "--as", "larger", "--json").json["run_id"] != first
    assert run("--resolution", "21", "--as", "odd").code == 2


def test_a_payload_ends_in_one_line_and_leaves_no_run(
    command: Callable[..., Ended], place: Place, tmp_path: Path
) -> None:
    torch.save({"model": Payload(tmp_path / "executed")}, tmp_path / "bad.pt")
    ended = command("gahb-analyze", "import", str(tmp_path / "bad.pt"), *place.flags)
    assert ended.code == 2 and len(ended.err.strip().splitlines()) == 1
    assert not (tmp_path / "executed").exists() and place.record.runs(Kind.TRIAL, Kind.IMPORT) == []


def test_pair_refuses_imported_models_unless_forced(
    command: Callable[..., Ended], place: Place, checkpoint: Path, tmp_path: Path
) -> None:
    torch.save(bf_cnn(4, set()), tmp_path / "flat.pt")
    command("gahb-analyze", "import", str(checkpoint), "--resolution", "8", *place.flags)
    command("gahb-analyze", "import", str(tmp_path / "flat.pt"), "--resolution", "8", *place.flags)
    refused = command("gahb-analyze", "pair", "faces", "flat", *place.flags)
    assert refused.code == 2 and "nothing is known of its training images; --force" in refused.err
    forced = command("gahb-analyze", "pair", "faces", "faces", "--samples", "2", "--force", "--json", *place.flags).json
    assert forced["samples"] == 2 and forced["swap_gap"] is None and forced["closest_train"]["mean"] is None


def test_a_histogram_leaves_out_what_is_not_known() -> None:
    table = pd.DataFrame({"converged": True, "cosine": [0.8, 0.9], "closest_train": float("nan")})
    axes = Figure().subplots()
    draw_histograms(axes, table)
    assert axes.get_legend_handles_labels()[1] == ["samples of two denoisers"]


@pytest.mark.slow
def test_an_imported_model_has_a_basis_at_anothers_image_and_a_way(
    command: Callable[..., Ended], ray_here: None, place: Place, checkpoint: Path
) -> None:
    place.launch([Trial.of({**TINY, "n_train": 1, "resolution": 8, "images": 32})])
    command("gahb-analyze", "import", str(checkpoint), "--resolution", "8", *place.flags)
    refused = command("gahb-analyze", "basis", "faces", *place.flags)
    assert refused.code == 2 and "--images-of RUN" in refused.err and refused.err.count("\n") == 1
    found = command("gahb-analyze", "basis", "faces", "--images-of", "8x8-N1-A", "--json", *place.flags).json
    clean = place.model("8x8-N1-A").held_out(place.context)[:1].float() / 255
    y = clean + 0.15 * torch.randn(1, 1, 8, 8, generator=noise.generator("basis", 0))
    denoiser = gahb.load("faces", record=place.record.uri, storage=place.store.uri)
    jacobian = torch.autograd.functional.jacobian(lambda v: denoiser(v).flatten(), y).reshape(64, 64)
    values = torch.linalg.eigvalsh((jacobian + jacobian.T) / 2).flip(0)
    torch.testing.assert_close(torch.tensor([row["eigenvalue"] for row in found["basis"]]), values, atol=1e-5, rtol=0)
    way = ("gahb-analyze", "trajectories", "faces", "faces", "--force", "--json", *place.flags)
    assert command(*way).json["cosine_end"] == pytest.approx(1)
