import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import fold

from gahb.models.architectures import Transformer, UNet
from gahb.models.layers import Denoiser
from gahb.models.transformer import rotate, rotations, sum_of_windows
from gahb.training import cost

PATCH, DEPTH, WIDTH, HEADS = 4, 3, 32, 2
ARCHITECTURE = Transformer(PATCH, DEPTH, WIDTH, HEADS)


@pytest.fixture
def denoiser() -> Denoiser:
    torch.manual_seed(0)
    return Denoiser(ARCHITECTURE.build())


def test_parameters() -> None:
    window = (2 * PATCH) ** 2
    block = WIDTH * 3 * WIDTH + WIDTH * WIDTH + HEADS + 2 * WIDTH * 4 * WIDTH
    assert cost.parameters(ARCHITECTURE, 40) == 2 * window * WIDTH + DEPTH * block
    assert cost.parameters(Transformer.at(40), 40) == pytest.approx(cost.parameters(UNet.at(40), 40), rel=0.05)


@pytest.mark.parametrize("resolution", [8, 20])
def test_flops(resolution: int) -> None:
    tokens = (resolution // PATCH) ** 2
    linear = 2 * (2 * PATCH) ** 2 * WIDTH + DEPTH * (3 + 1 + 4 + 4) * WIDTH**2
    attention = DEPTH * 2 * tokens * WIDTH  # <q, k> with every token, and the weighted sum of every v
    assert cost.forward_flops(ARCHITECTURE, resolution) == 2 * tokens * (linear + attention)


@pytest.mark.parametrize("shape", [(1, 1, 4, 4), (2, 1, 20, 20), (3, 1, 8, 16)])
def test_shapes(denoiser: Denoiser, shape: tuple[int, ...]) -> None:
    assert denoiser(torch.randn(shape)).shape == shape


def test_homogeneous_in_single_precision_too(denoiser: Denoiser) -> None:
    y = torch.randn(4, 1, 16, 16)
    for a in (1e-6, 3.7, 1e6):
        assert (denoiser(a * y) - a * denoiser(y)).norm() < 1e-5 * (a * denoiser(y)).norm()


def test_a_black_image_stays_black_and_black_patches_do_no_harm(denoiser: Denoiser) -> None:
    assert denoiser(torch.zeros(1, 1, 16, 16)).count_nonzero() == 0
    y = torch.zeros(1, 1, 16, 16)
    y[..., 8:] = torch.rand(8)
    denoiser(y).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in denoiser.parameters())


def test_every_pixel_is_seen(denoiser: Denoiser) -> None:
    # far beyond the windows of neighbouring patches
    y = torch.randn(1, 1, 64, 64, requires_grad=True)
    (gradient,) = torch.autograd.grad(denoiser(y)[0, 0, 0, 0], y)
    assert gradient.count_nonzero() == y.numel()
    assert ARCHITECTURE.receptive_field() == math.inf


def test_images_of_a_batch_do_not_meet(denoiser: Denoiser) -> None:
    y = torch.randn(3, 1, 16, 16)
    torch.testing.assert_close(denoiser(y)[1:2], denoiser(y[1:2]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("patch", "rows", "columns"), [(2, 3, 5), (4, 1, 1), (8, 2, 1)])
def test_windows_add_up_as_fold_adds_them(patch: int, rows: int, columns: int, dtype: torch.dtype) -> None:
    size = (rows * patch, columns * patch)
    windows = torch.randn(3, rows * columns, (2 * patch) ** 2).to(dtype)
    a, b = (windows.clone().requires_grad_() for _ in range(2))
    sums = sum_of_windows(a, patch, *size)
    folded = fold(b.transpose(1, 2), size, kernel_size=2 * patch, stride=patch, padding=patch // 2)
    gradient = torch.randn_like(sums)
    sums.backward(gradient)
    folded.backward(gradient)
    assert torch.equal(sums, folded) and a.grad is not None and b.grad is not None and torch.equal(a.grad, b.grad)


def test_attention_sees_differences_of_positions_alone() -> None:
    def products(rows: Tensor, columns: Tensor) -> Tensor:
        turned = [rotate(vectors, rotations(rows, columns, turns=2)) for vectors in (q, k)]
        return turned[0] @ turned[1].T

    torch.manual_seed(0)
    q, k = torch.randn(2, 12, 8, dtype=torch.float64)
    rows, columns = torch.arange(3.0, dtype=torch.float64), torch.arange(4.0, dtype=torch.float64)
    here = products(rows, columns)
    torch.testing.assert_close(products(rows + 5, columns - 7), here)
    assert not torch.allclose(products(2 * rows, columns), here) and not torch.allclose(products(rows, -columns), here)


def test_rotations_are_rotations() -> None:
    vectors = torch.randn(6, 8, dtype=torch.float64)
    rows = torch.arange(2.0, dtype=torch.float64)
    turned = rotate(vectors, rotations(rows, torch.arange(3.0, dtype=torch.float64), turns=2))
    torch.testing.assert_close(turned.norm(dim=1), vectors.norm(dim=1))
    torch.testing.assert_close(turned[0], vectors[0])  # the token at the origin
