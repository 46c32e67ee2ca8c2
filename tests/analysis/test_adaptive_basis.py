from dataclasses import replace

import numpy as np
import pytest
import torch
from gahb_analysis.adaptive_basis import analyse, held_out_image
from torch import Tensor, nn

from gahb.data.disks import Disks
from gahb.data.pixel_shuffling import shuffle
from gahb.models.layers import Denoiser
from gahb.trial import Trial
from tests.helpers import TINY, Place

CPU = torch.device("cpu")


class Projection(Denoiser):
    """The projection on the span of orthonormal vectors (d, m)."""

    def __init__(self, net: nn.Module, vectors: Tensor) -> None:
        super().__init__(net)
        self.vectors = vectors

    def forward(self, y: Tensor) -> Tensor:
        return (y.flatten(1) @ self.vectors @ self.vectors.T).view_as(y)


def test_projection_on_the_tangent_space_has_angles_0_and_error_m(finished: Place) -> None:
    disks = Trial.of({**TINY, "dataset": "disks", "n_train": 1})
    tangents = torch.from_numpy(Disks().tangent_space(16, 7)).float()
    found = finished.model("16x16-N1-A")
    optimum = replace(found, denoiser=Projection(found.denoiser.net, tangents))
    clean = (tangents @ torch.ones(5)).view(1, 1, 16, 16)
    answer = analyse(optimum, disks.dataset, clean, 7, 0.1, None, CPU)
    np.testing.assert_allclose(answer.table["eigenvalue"], [1] * 5 + [0] * 251, atol=1e-5)
    np.testing.assert_allclose(answer.dimensions["effective_dimension"], 5, rtol=1e-5)
    np.testing.assert_allclose(answer.dimensions["error"], answer.dimensions["error"][0], rtol=1e-2)  # ‖P z‖² at all σ
    assert answer.angles is not None and len(answer.angles) == 5 and answer.metrics()["largest_angle"] < 0.1
    assert analyse(found, disks.dataset, clean, 7, 0.1, 8, CPU).metrics()["largest_angle"] > 10
    shuffled = replace(disks.dataset, shuffled=True)
    assert analyse(found, shuffled, clean, 7, 0.1, 8, CPU).angles is None


def test_shuffled_images_and_vectors_are_shown_with_their_pixels_in_place(finished: Place) -> None:
    found = finished.model("16x16-N64-A")
    clean = held_out_image(finished.context, found, 3)
    shuffled = torch.from_numpy(shuffle(clean.numpy()))
    unit = shuffled.flatten() / shuffled.norm()
    optimum = replace(found, denoiser=Projection(found.denoiser.net, unit[:, None]))
    answer = analyse(optimum, replace(found.trial.dataset, shuffled=True), shuffled, 3, 0.1, None, CPU, [0])
    torch.testing.assert_close(answer.clean, clean[0])
    torch.testing.assert_close(answer.vectors[0].float(), clean[0] / clean.norm())
    cosine = (answer.denoised * clean[0]).sum() / answer.denoised.norm() / clean.norm()
    assert float(cosine) == pytest.approx(1)


def test_tangent_vectors_stand_beside_the_vectors_that_match_them(finished: Place) -> None:
    disks = Trial.of({**TINY, "dataset": "disks", "n_train": 1})
    found = finished.model("16x16-N1-A")
    clean = torch.from_numpy(Disks().tangent_space(16, 7)).float().sum(1).view(1, 1, 16, 16)
    answer = analyse(found, disks.dataset, clean, 7, 0.1, None, CPU, range(300))
    assert answer.tangents.shape == (5, 1, 16, 16) and list(answer.vectors) == list(range(256))
    cosines = torch.stack([(t * answer.vectors[k]).sum() for k, t in enumerate(answer.tangents)])
    # the trace of the product with the closest basis is the sum of the cosines of the principal angles
    assert answer.angles is not None
    assert float(cosines.sum()) == pytest.approx(np.cos(np.deg2rad(answer.angles["angle"])).sum(), abs=1e-6)
    assert all((vector * clean[0]).sum() >= 0 for vector in answer.vectors.values())
    data = answer.data()
    assert data["tangent_angles"] == answer.angles["angle"].tolist() and len(data["singular_values"]) == 256
