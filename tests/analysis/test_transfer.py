import json
from collections.abc import Callable

import pytest
import torch
from gahb_analysis.transfer import Specialist, choose, figure, labels, transfer_table

from gahb.errors import UserError
from gahb.grids import grid
from gahb.models.layers import Denoiser
from gahb.tracking.run import Kind, Run
from gahb.trial import Trial
from tests.helpers import TINY, Ended, Place

CPU = torch.device("cpu")


def run_of(name: str, data_hash: str, n_train: int, subset: str = "A", resolution: int = 16, **flat: object) -> Run:
    whole = Trial.of({**TINY, "n_train": n_train, "subset": subset, "resolution": resolution, **flat}).flat()
    tags = {"gahb.subset": subset, "gahb.data_hash": data_hash, "gahb.trial": json.dumps(whole)}
    return Run(name, "0", name, "finished", tags, {}, {}, "")


def test_the_largest_n_of_each_class_on_subset_a_is_chosen_at_each_resolution() -> None:
    runs = [
        run_of("a1", "aa", 1),
        run_of("a9", "aa", 9),
        run_of("a9 again", "aa", 9),
        run_of("a10", "aa", 10, subset="B"),
        run_of("b5", "bb", 5, alpha=3.0),
        run_of("c5", "cc", 5, resolution=8),
    ]
    assert [[run.name for run in group] for group in choose(runs)] == [["a9", "b5"]]
    with pytest.raises(UserError, match="two data sets at one resolution"):
        choose(runs[:4] + runs[5:])


def test_labels_tell_data_sets_of_one_name_apart() -> None:
    runs = [run_of("", "aa", 1), run_of("", "bb", 1, alpha=3.0)]
    assert labels(runs) == ["c_alpha alpha=2.0", "c_alpha alpha=3.0"]
    assert labels([run_of("", "aa", 1), run_of("", "bb", 1, dataset="disks")]) == ["c_alpha", "disks"]
    files = [run_of("", data_hash, 1, dataset=f"/{data_hash}/faces.npy") for data_hash in ("aa", "bb")]
    assert labels(files) == ["faces aa", "faces bb"]
    shuffled = [run_of("", "aa", 1), run_of("", "bb", 1, shuffled=True)]
    assert labels(shuffled) == ["c_alpha", "c_alpha shuffled=True"], "a key that is left out where it is the default"


class Scale(torch.nn.Module):
    """The noise that f(y) = y / scale takes y to hold."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        return y * (1 - 1 / self.scale)


def test_the_drop_is_measured_from_the_classes_own_model() -> None:
    torch.manual_seed(0)
    specialists = [
        Specialist(run_of("", h, 4), label, Denoiser(Scale(s)).eval(), torch.randint(0, high, (n, 1, 8, 8)).byte())
        for h, label, s, high, n in (("aa", "dark", 1e3, 9, 5), ("bb", "bright", 1.0, 256, 7))
    ]
    table = transfer_table(specialists, CPU).set_index(["model", "images"])
    assert table.loc[("dark", "dark"), "drop"] == table.loc[("bright", "bright"), "drop"] == 0
    for images in ("dark", "bright"):
        stranger = "dark" if images == "bright" else "bright"
        own, other = (table.loc[(model, images), "psnr"] for model in (images, stranger))
        assert table.loc[(stranger, images), "drop"] == pytest.approx(own - other)
    assert table.loc[("dark", "dark"), "psnr"] > 30 and table.loc[("bright", "dark"), "drop"] > 10
    picture = figure(table.reset_index(), specialists, CPU)
    assert [len(axes.texts) for axes in picture.axes] == [4, 4, 0]


def test_one_class_is_refused(command: Callable[..., Ended], finished: Place) -> None:
    ended = command("gahb-analyze", "transfer", "tiny", *finished.flags)
    assert ended.code == 2 and "two data sets" in ended.err


@pytest.mark.slow
def test_transfer_of_trained_models(command: Callable[..., Ended], ray_here: None, place: Place) -> None:
    short = {**TINY, "images": 320, "n_train": (1, 4)}
    place.launch(grid({**short, "alpha": (1.0, 3.0)}), "rough")
    place.launch(grid({**short, "dataset": "disks"}), "round")
    data = command("gahb-analyze", "transfer", "rough", "round", "--json", *place.flags).json
    assert len(data["transfer"]) == 9 and {row["n_train"] for row in data["transfer"]} == {4}
    (run,) = place.record.runs("transfer")
    assert {file.name for file in place.record.artifacts(run.run_id).iterdir()} == {
        "transfer.csv",
        "transfer_16.png",
        "transfer_16.svg",
    }
    for row in data["transfer"]:
        if row["model"] == row["images"]:
            assert row["drop"] == 0
    own = next(run for run in place.record.runs(Kind.TRIAL, sweep="round") if run.params["n_train"] == "4")
    (row,) = [row for row in data["transfer"] if row["model"] == row["images"] == "disks"]
    assert row["psnr"] == pytest.approx(own.metrics["test_psnr"], abs=1e-4)
