import numpy as np
import torch

from gahb.data import intensity
from gahb.data.dataset import TYPES
from gahb.denoising import noise


def test_both_types_of_stored_images_are_read_as_fractions_of_their_largest_number() -> None:
    for kind in TYPES:
        most = np.iinfo(kind).max
        stored = torch.from_numpy(np.arange(0, most + 1, most // 15, dtype=kind).reshape(-1, 1, 2, 2))
        expected = stored.double() / most
        assert torch.allclose(intensity.unit(stored).double(), expected, atol=1e-7)
        rows = torch.tensor([3, 0, 3])
        assert torch.equal(intensity.unit(stored, rows), intensity.unit(stored)[rows])
        assert abs(intensity.mean(stored) - 0.5) < 1e-6
    assert intensity.unit(torch.tensor([[[[255]]]], dtype=torch.uint8)).item() == 1


def test_a_batch_of_16_bits_is_that_of_8_where_intensities_agree() -> None:
    coarse = torch.randint(0, 256, (5, 1, 4, 4), dtype=torch.uint8)
    fine = torch.from_numpy(coarse.numpy().astype(np.uint16) * 257)  # 255·257 = 65535
    batches = [noise.noisy_batch(images, 8, noise.generator("test")) for images in (coarse, fine)]
    assert torch.allclose(batches[0][0], batches[1][0], atol=1e-6) and torch.equal(batches[0][1], batches[1][1])
