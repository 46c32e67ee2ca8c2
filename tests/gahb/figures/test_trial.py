from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gahb.denoising.levels import INPUT_PSNR, SIGMAS
from gahb.denoising.psnr import Curve
from gahb.figures import trial
from gahb.models.architectures import UNet
from gahb.models.layers import Denoiser, initialise
from gahb.training.loop import Evaluation, Trained
from tests.helpers import Towards

IMAGES = torch.randint(112, 144, (8, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def curve(shift: float) -> Curve:
    train = tuple(level + shift for level in INPUT_PSNR)
    return Curve(train, tuple(value - 1 for value in train))


def test_the_curve_of_every_evaluation_is_a_table(tmp_path: Path) -> None:
    denoiser = Denoiser(UNet(1, 4).build().apply(initialise)).eval()
    history = [Evaluation(images_seen, 1.0, 1e-3, curve(images_seen / 64), 0.0) for images_seen in (64, 128)]
    trial.write_trial(tmp_path, Trained(denoiser, history), IMAGES)
    table = pd.read_csv(tmp_path / "psnr_curve.csv")
    assert table["images_seen"].tolist() == [64] * len(SIGMAS) + [128] * len(SIGMAS)
    np.testing.assert_allclose(table["input_psnr"], -20 * np.log10(table["sigma"]), atol=1e-9)
    np.testing.assert_allclose(table["train_psnr"], table["input_psnr"] + table["images_seen"] / 64)
    np.testing.assert_allclose(table["test_psnr"], table["train_psnr"] - 1)
    assert {file.name for file in tmp_path.iterdir()} == {"psnr_curve.csv", "psnr_curve.png", "denoised.png"}


def test_the_curve_is_drawn_beside_the_identity() -> None:
    lines = trial.psnr_curve(curve(3.0).rows()).axes[0].get_lines()
    heights = {str(line.get_label()): np.asarray(line.get_ydata()) - line.get_xdata() for line in lines}
    for label, height in {"identity": 0, "train": 3, "test": 2}.items():
        np.testing.assert_allclose(heights[label], height, atol=1e-9)


class Into(Towards):
    """The same, with a parameter to say where it is."""

    def __init__(self, image: Tensor) -> None:
        super().__init__(image)
        self.where = torch.nn.Parameter(torch.zeros(()))


def test_examples_are_clean_then_noisy_and_denoised_at_each_level() -> None:
    clean, prediction = IMAGES[0, 0].numpy() / 255, IMAGES[1].float() / 255
    axes = trial.denoised_examples(Denoiser(Into(prediction)), IMAGES[:1]).axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["clean", *(text for level in trial.SHOWN_PSNR for text in (f"noisy, {level} dB", "denoised"))]
    picture = np.asarray(axes.get_images()[0].get_array())
    first, *rest = (picture[1 + 9 * i : 9 + 9 * i, 1:9] for i in range(len(labels)))
    np.testing.assert_allclose(first, clean, atol=1e-6)
    levels = dict(zip(trial.SHOWN_PSNR, zip(rest[::2], rest[1::2], strict=True), strict=True))
    for _, denoised in levels.values():
        np.testing.assert_allclose(denoised, prediction[0], atol=1e-6)
    noise = {level: (levels[level][0] - clean) / 10 ** (-level / 20) for level in (18, 24)}  # higher ones are cut off
    np.testing.assert_allclose(noise[18], noise[24], atol=1e-4)
    assert 0.8 < noise[24].std() < 1.2


def test_an_evaluation_shows_held_out_images_and_samples_where_these_are_cheap() -> None:
    denoiser = Denoiser(Into(IMAGES[1].float() / 255)).eval()
    denoised, samples = trial.stages(trial.CHEAP, denoiser, IMAGES)
    assert (denoised[:2], samples[:2]) == (("denoised", trial.CHEAP), ("samples", trial.CHEAP))
    assert denoised[2].size == (6 * 64, 5 * 64) and samples[2].size == (6 * 64, 64)
    rows = np.asarray(denoised[2])[4::8, 4::8].reshape(5, 8, 6, 8)
    assert np.array_equal(rows[0], IMAGES[:6, 0].transpose(0, 1)) and np.array_equal(rows[2, :, 3], IMAGES[1, 0])
    assert [name for name, *_ in trial.stages(trial.CHEAP - 1, denoiser, IMAGES)] == ["denoised"]
