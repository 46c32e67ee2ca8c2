from collections.abc import Callable
from dataclasses import replace

import pandas as pd
import pytest
import torch
from gahb_analysis.models import TrialModel
from gahb_analysis.originality import Settings, compare, mosaic

from gahb.data import intensity
from gahb.denoising.sampler import Sampler
from gahb.models.layers import Denoiser
from gahb.tracking import lookup
from tests.helpers import Ended, Place, Towards

SETTINGS = Settings(samples=2, seed=0, patch=4, searched=64, sampler=Sampler())


def drawing(model: TrialModel, image: torch.Tensor) -> TrialModel:
    """The model with a denoiser that draws one image alone."""
    return replace(model, denoiser=Denoiser(Towards(image)))


def test_a_copy_a_collage_and_a_new_image_are_told_apart(finished: Place) -> None:
    a, b = (finished.model(f"16x16-N64-{subset}") for subset in "AB")
    images_a, images_b = intensity.unit(a.train_images), intensity.unit(b.train_images)

    def collage(images: torch.Tensor) -> torch.Tensor:  # of sixteen of them
        rows = torch.arange(16).view(4, 4).repeat_interleave(4, 0).repeat_interleave(4, 1)
        return images[:16, 0].gather(0, rows[None])

    def found(image_a: torch.Tensor, image_b: torch.Tensor) -> pd.Series:
        pair = compare(drawing(a, image_a), drawing(b, image_b), SETTINGS, torch.device("cpu"))
        return pair.table.mean(numeric_only=True)

    copy = found(images_a[5], images_b[5])
    for kind, least in (("whole", 0.1), ("aligned", 0.1), ("anywhere", 0.02)):
        assert copy[kind] == pytest.approx(1, abs=1e-4) and copy[f"{kind}_excess"] > least
        assert copy[f"{kind}_excess"] == pytest.approx(copy[kind] - copy[f"{kind}_other"])
    assert copy["one_source"] == 1

    mixed = found(collage(images_a), collage(images_b))
    assert mixed["aligned"] == pytest.approx(1, abs=1e-4) == pytest.approx(mixed["anywhere"], abs=1e-4)
    assert mixed["whole"] < 0.9 and mixed["aligned_excess"] > 0.1 and mixed["one_source"] < 0.5

    held_out = intensity.unit(a.held_out(finished.context))
    new = sum(found(held_out[i], held_out[i + 1]) for i in range(0, 12, 2)) / 6
    for kind, most in (("whole", 0.1), ("aligned", 0.03), ("anywhere", 0.01)):
        assert new[kind] < 0.99 and abs(new[f"{kind}_excess"]) < most
    assert new["anywhere"] > new["aligned"]


def test_a_mosaic_of_an_images_own_patches_is_the_image() -> None:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (5, 3, 10, 8), dtype=torch.uint8)
    sample = 0.2 + 0.3 * intensity.unit(images[3:4])
    made = mosaic(sample, images, torch.full((1, 4), 3), 4)
    torch.testing.assert_close(made, sample[:, :, :8], atol=1e-5, rtol=0)


def test_originality_command(command: Callable[..., Ended], finished: Place) -> None:
    ended = command(
        "gahb-analyze", "originality", "tiny", "--samples", "4", "--searched", "8", "--json", *finished.flags
    )
    few, many = ended.json["originality"]
    assert (few["n_train"], few["searched"], many["n_train"], many["searched"]) == (1, 1, 64, 8)
    assert few["patch"] == 4 and few["one_source"] == 1 and few["whole_excess"] > many["whole_excess"]
    (run,) = [r for r in lookup.analyses(finished.record, "tiny") if r.run_id == ended.json["run_id"]]
    assert run.params["patch"] == "None" and run.params["beta"] == "0.1"
    names = {file.name for file in finished.record.artifacts(run.run_id).iterdir()}
    assert names == {"originality.csv", "samples.csv", "originality.png", "originality.svg", "images"}
    wrong = command("gahb-analyze", "originality", "tiny", "--patch", "17", *finished.flags)
    assert wrong.code == 2 and "--patch 17" in wrong.err
