import math

import pytest
import torch
from torch import Tensor, nn

from gahb.denoising import jacobian
from gahb.models.architectures import BFCNN, Architecture, Transformer, UNet
from gahb.models.layers import BiasFreeBatchNorm, Denoiser, initialise

TRANSFORMER = Transformer(patch=4, depth=2, width=16, heads=2)


def denoiser_like_a_trained_one(architecture: Architecture, dtype: torch.dtype = torch.float32) -> Denoiser:
    """Random weights; gains and running deviations such that activations keep their size from layer to layer."""
    torch.manual_seed(0)
    net = architecture.build().apply(initialise)
    for module in net.modules():
        if isinstance(module, BiasFreeBatchNorm):
            module.gain.data = 0.3 + torch.rand_like(module.gain)
    return Denoiser(net).to(dtype).eval()


def noisy_image(side: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return 0.5 + 0.3 * torch.randn(1, 1, side, side, generator=torch.Generator().manual_seed(1)).to(dtype)


class Linear(nn.Module):
    """f(y) = M y for images of d pixels."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix = matrix

    def forward(self, y: Tensor) -> Tensor:
        return (y.flatten(1) @ self.matrix.T).view_as(y)


@pytest.mark.parametrize("architecture", [UNet(1, 8), UNet(2, 4), BFCNN(5, 8), TRANSFORMER])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_jacobian_times_the_image_is_the_denoised_image(architecture: Architecture, dtype: torch.dtype) -> None:
    denoiser, y = denoiser_like_a_trained_one(architecture, dtype), noisy_image(12, dtype)
    product = jacobian.full(denoiser, y, rows=50) @ y.flatten()
    denoised = denoiser(y).detach().flatten()
    assert (product - denoised).norm() / denoised.norm() < (1e-5 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("architecture", [UNet(1, 8), UNet(2, 4), BFCNN(5, 8, first_relu=True)])
def test_the_jacobian_and_its_products_are_those_of_automatic_differentiation(architecture: Architecture) -> None:
    denoiser, y = denoiser_like_a_trained_one(architecture), noisy_image(12)
    found, expected = jacobian.full(denoiser, y, rows=50), torch.func.jacrev(denoiser)(y).detach().view(144, 144)
    assert (found - expected).norm() / expected.norm() < 1e-5
    v = torch.randn(3, 1, 12, 12)
    forward, backward = jacobian.products(denoiser, y)(v)
    assert (forward.flatten(1) - v.flatten(1) @ expected.T).norm() / forward.norm() < 1e-5
    assert (backward.flatten(1) - v.flatten(1) @ expected).norm() / backward.norm() < 1e-5


def test_a_denoiser_that_is_not_piecewise_linear_has_a_jacobian() -> None:
    class Net(nn.Module):
        def forward(self, y: Tensor) -> Tensor:
            return y * y.flatten(1).softmax(dim=1).view_as(y)

    denoiser, y = Denoiser(Net()).eval(), noisy_image(6, torch.float64)
    expected = torch.func.jacrev(denoiser)(y).view(36, 36)
    torch.testing.assert_close(jacobian.full(denoiser, y, rows=7), expected)
    v = torch.randn(2, 1, 6, 6, dtype=torch.float64)
    forward, backward = jacobian.products(denoiser, y)(v)
    torch.testing.assert_close(forward.flatten(1), v.flatten(1) @ expected.T)
    torch.testing.assert_close(backward.flatten(1), v.flatten(1) @ expected)


def test_bfloat16_moves_eigenvalues_little() -> None:
    denoiser, y = denoiser_like_a_trained_one(UNet(1, 8)), noisy_image(12)
    exact, rough = (jacobian.full(denoiser, y, dtype=dtype) for dtype in (None, torch.bfloat16))
    assert 0 < (exact - rough).norm() / exact.norm() < 0.01
    values = [torch.linalg.eigvalsh(j + j.T) for j in (exact, rough)]
    assert (values[0] - values[1]).abs().max() / values[0].abs().max() < 5e-3


def test_a_linear_denoiser_has_its_matrix_as_jacobian() -> None:
    torch.manual_seed(2)
    matrix = torch.randn(36, 36, dtype=torch.float64) / 6
    denoiser, y = Linear(matrix), noisy_image(6, torch.float64)
    torch.testing.assert_close(jacobian.full(denoiser, y, rows=7), matrix)
    v = torch.randn(5, 1, 6, 6, dtype=torch.float64)
    forward, backward = jacobian.products(denoiser, y)(v)
    torch.testing.assert_close(forward.flatten(1), v.flatten(1) @ matrix.T)
    torch.testing.assert_close(backward.flatten(1), v.flatten(1) @ matrix)

    found = jacobian.spectrum(denoiser, y)
    symmetric = (matrix + matrix.T) / 2
    torch.testing.assert_close(found.vectors @ found.values.diag() @ found.vectors.T, symmetric)
    torch.testing.assert_close(found.vectors.T @ found.vectors, torch.eye(36, dtype=torch.float64))
    assert (found.values.diff() <= 0).all()
    assert found.asymmetry == pytest.approx(float((matrix - matrix.T).norm() / matrix.norm()))
    assert found.trace == pytest.approx(float(matrix.trace())) == pytest.approx(float(found.values.sum()))
    assert jacobian.spectrum(Linear(symmetric), y).asymmetry == 0


def test_singular_values_are_those_of_the_jacobian_and_not_its_eigenvalues() -> None:
    torch.manual_seed(3)
    matrix = torch.randn(36, 36, dtype=torch.float64) / 6
    found = jacobian.spectrum(Linear(matrix), noisy_image(6, torch.float64))
    torch.testing.assert_close(found.singular_values, torch.linalg.svdvals(matrix), atol=1e-7, rtol=0)
    assert found.values.min() < 0 < found.singular_values.min()
    positive = jacobian.spectrum(Linear(matrix @ matrix.T), noisy_image(6, torch.float64))
    torch.testing.assert_close(positive.singular_values, positive.values, atol=1e-7, rtol=0)

    denoiser, y = denoiser_like_a_trained_one(UNet(1, 8)), noisy_image(12)
    expected = torch.linalg.svdvals(torch.func.jacrev(denoiser)(y).detach().view(144, 144).double())
    torch.testing.assert_close(jacobian.spectrum(denoiser, y).singular_values, expected, atol=1e-5, rtol=0)


def test_the_jacobian_of_a_denoiser_of_colour_images() -> None:
    torch.manual_seed(4)
    matrix = torch.randn(48, 48, dtype=torch.float64) / 7
    y = torch.rand(1, 3, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(jacobian.full(Linear(matrix), y, rows=5), matrix)
    assert jacobian.top_spectrum(Linear(matrix), y, 3).vectors.shape == (48, 3)


@pytest.mark.parametrize("architecture", [UNet(1, 8), BFCNN(5, 8), TRANSFORMER])
def test_lanczos_finds_the_top_of_the_full_spectrum(architecture: Architecture) -> None:
    denoiser, y = denoiser_like_a_trained_one(architecture), noisy_image(16)
    whole, top = jacobian.spectrum(denoiser, y), jacobian.top_spectrum(denoiser, y, 20)
    torch.testing.assert_close(top.values, whole.values[:20], atol=1e-4, rtol=0)
    torch.testing.assert_close(top.vectors.T @ top.vectors, torch.eye(20, dtype=torch.float64), atol=1e-6, rtol=0)
    angle = jacobian.principal_angles(top.vectors[:, :10], whole.vectors[:, :20]).max()
    assert angle < 0.05
    assert top.estimated and not whole.estimated


def test_probes_estimate_trace_and_asymmetry() -> None:
    denoiser, y = denoiser_like_a_trained_one(UNet(1, 8)), noisy_image(16)
    whole = jacobian.spectrum(denoiser, y)
    trace, asymmetry = jacobian.estimates(denoiser, y, probes=256)
    deviation = (2 * float(whole.values.square().sum()) / 256) ** 0.5  # of a Hutchinson estimate, at most
    assert abs(trace - whole.trace) < 4 * deviation
    assert asymmetry == pytest.approx(whole.asymmetry, rel=0.1)
    top = jacobian.top_spectrum(denoiser, y, 20)  # whose own estimates have 24 probes for what is left
    rest = float(whole.values[20:].square().sum())
    assert abs(top.trace - whole.trace) < 4 * (2 * rest / 24) ** 0.5
    assert top.asymmetry == pytest.approx(whole.asymmetry, rel=0.2)
    diagonal = Linear(torch.arange(36.0).diag())
    assert jacobian.estimates(diagonal, noisy_image(6), probes=1) == (pytest.approx(35 * 18), 0)


def test_principal_angles_of_known_subspaces() -> None:
    angles = torch.tensor([0.2, 0.9], dtype=torch.float64)
    a = torch.eye(6, dtype=torch.float64)[:, :2]
    b = torch.zeros(6, 2, dtype=torch.float64)
    b[[0, 1], [0, 1]], b[[2, 3], [0, 1]] = angles.cos(), angles.sin()
    torch.testing.assert_close(jacobian.principal_angles(a, b), angles)
    mixed = b @ torch.tensor([[1.0, 2.0], [3.0, -1.0]], dtype=torch.float64)
    torch.testing.assert_close(jacobian.principal_angles(a, mixed), angles)
    assert jacobian.principal_angles(a, a).abs().max() < 1e-7
    orthogonal = torch.eye(6)[:, 3:6]
    torch.testing.assert_close(jacobian.principal_angles(a, orthogonal), torch.full((2,), math.pi / 2).double())


def test_aligned_vectors_span_the_same_space_and_are_the_closest() -> None:
    torch.manual_seed(5)
    a, b = (torch.linalg.qr(torch.randn(30, 4, dtype=torch.float64))[0] for _ in range(2))
    found = jacobian.aligned(a, b)
    torch.testing.assert_close(found.T @ found, torch.eye(4, dtype=torch.float64))
    assert jacobian.principal_angles(found, a).max() < 1e-7
    others = [a @ torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))[0] for _ in range(50)]
    assert (found - b).norm() <= min((other - b).norm() for other in others)
    torch.testing.assert_close(jacobian.aligned(a, a[:, [2, 0]]), a[:, [2, 0]])
