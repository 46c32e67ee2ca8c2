from pathlib import Path

import pytest
import torch

from gahb.denoising.sampling import sample
from gahb.models.architectures import UNet
from gahb.models.layers import Denoiser, initialise
from gahb.storage.local import Folder
from gahb.training import loop
from gahb.training.checkpoints import Checkpoints
from gahb.trial import Trial

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

GPU = torch.device("cuda")
TRIAL = {"dataset": "c_alpha", "resolution": 20, "n_train": 8, "n_test": 8, "batch_size": 64, "images": 64 * 40}


class Killed(Exception):
    pass


class Interrupting(Checkpoints):
    def save(self, step: int, tensors: dict[str, torch.Tensor], facts: dict) -> None:
        super().save(step, tensors, facts)
        if step == 23:
            raise Killed


@pytest.mark.parametrize("changes", [{}, {"precision": "bfloat16", "compile": True}])
def test_resuming_gives_the_same_bits(changes: dict, tmp_path: Path) -> None:
    trial = Trial.of({**TRIAL, **changes})
    images = torch.randint(0, 256, (8, 1, 20, 20), dtype=torch.uint8)
    training = loop.Training(trial, images, images, GPU)
    whole = loop.train(training, Checkpoints(Folder(tmp_path / "whole")))
    with pytest.raises(Killed):
        loop.train(training, Interrupting(Folder(tmp_path / "cut")), loop.Options(checkpoint_seconds=0))
    resumed = loop.train(training, Checkpoints(Folder(tmp_path / "cut")))
    stored = resumed.denoiser.state_dict()
    assert all(torch.equal(value, stored[key]) for key, value in whole.denoiser.state_dict().items())
    assert resumed.history == whole.history


def test_samples_are_those_of_the_cpu() -> None:
    torch.manual_seed(0)
    denoiser = Denoiser(UNet(1, 8).build().apply(initialise)).eval()
    here = sample(denoiser, 8, 16, mean=0.5)
    there = sample(denoiser.to(GPU), 8, 16, mean=0.5, device=GPU)
    torch.testing.assert_close(here.images, there.images, atol=1e-3, rtol=0)
