import pytest
import torch
from torch import nn

from gahb.models.architectures import BFCNN, Architecture, Transformer, UNet
from gahb.models.layers import BiasFreeBatchNorm, Denoiser, initialise, update_running_sd
from gahb.training import cost

SMALL = [
    UNet(blocks=1, width=4),
    UNet(blocks=2, width=4),
    UNet(blocks=3, width=3),
    BFCNN(layers=5, width=4),
    BFCNN(layers=6, width=4, spacing=2, first_relu=True),
    Transformer(patch=4, depth=2, width=16, heads=2),
    Transformer(patch=2, depth=1, width=8, heads=1),
]


def trained_like(architecture: Architecture) -> nn.Module:
    """A network with running standard deviations that are not all 1, in evaluation mode."""
    torch.manual_seed(0)
    net = architecture.build().apply(initialise)
    for _ in range(3):
        net(torch.randn(4, 1, 16, 16))
        update_running_sd(net)
    return net.eval()


@pytest.mark.parametrize(
    ("architecture", "paper", "exact"),
    [
        (UNet.at(20), 360e3, 366_080),
        (UNet.at(40), 1.8e6, 1_825_024),
        (UNet.at(80), 7.6e6, 7_659_264),
        (UNet.at(160), 31e6, 30_993_152),
        (BFCNN(), 700e3, 702_784),
    ],
)
def test_parameters_of_table_1(architecture: Architecture, paper: float, exact: int) -> None:
    assert cost.parameters(architecture, 160) == exact == pytest.approx(paper, rel=0.05)


def gradient_support(architecture: Architecture, side: int) -> int:
    """The least side of the square of input pixels that one output pixel of the first 2^blocks depends on."""
    with torch.device("meta"):
        net = architecture.build()
    net = net.to_empty(device="cpu").eval()
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.constant_(module.weight, 1.0)
        elif isinstance(module, BiasFreeBatchNorm):
            nn.init.constant_(module.gain, 1e-2)
            nn.init.constant_(module.running_sd, 1.0)
    widths = []
    for offset in range(2 ** getattr(architecture, "blocks", 0)):
        image = torch.ones(1, 1, side, side, requires_grad=True)
        middle = side // 2 + offset
        (gradient,) = torch.autograd.grad(net(image)[0, 0, middle, middle], image)
        columns = gradient[0, 0].abs().sum(dim=0).nonzero().flatten()
        assert columns.min() > 0 and columns.max() < side - 1, "the image must hold the receptive field"
        widths.append(int(columns.max() - columns.min()) + 1)
    return min(widths)


@pytest.mark.parametrize(("blocks", "field", "side"), [(1, 18, 32), (2, 44, 64), (3, 92, 128), (4, 188, 256)])
def test_receptive_fields_of_table_1(blocks: int, field: int, side: int) -> None:
    architecture = UNet(blocks, width=2)
    assert architecture.receptive_field() == field == gradient_support(architecture, side)


@pytest.mark.parametrize(("spacing", "field"), [(1, 43), (2, 23), (4, 13), (8, 9), (20, 5)])
def test_receptive_fields_of_bf_cnn(spacing: int, field: int) -> None:
    architecture = BFCNN(layers=21, width=2, spacing=spacing)
    assert architecture.receptive_field() == field == gradient_support(architecture, 64)


@pytest.mark.parametrize("architecture", SMALL)
def test_homogeneous_in_evaluation_mode(architecture: Architecture) -> None:
    denoiser = Denoiser(trained_like(architecture)).double()
    y = torch.randn(2, 1, 16, 16, dtype=torch.float64)
    for a in (0.01, 3.7):
        torch.testing.assert_close(denoiser(a * y), a * denoiser(y), rtol=1e-10, atol=0)


@pytest.mark.parametrize("architecture", SMALL)
def test_jacobian_times_image_is_the_denoised_image(architecture: Architecture) -> None:
    denoiser = Denoiser(trained_like(architecture)).double()
    y = torch.randn(1, 1, 16, 16, dtype=torch.float64)
    _, product = torch.func.jvp(denoiser, (y,), (y,))
    torch.testing.assert_close(product, denoiser(y), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("architecture", SMALL)
def test_no_additive_constant_anywhere(architecture: Architecture) -> None:
    net = trained_like(architecture)
    assert all(getattr(module, "bias", None) is None for module in net.modules())
    assert net(torch.zeros(1, 1, 16, 16)).count_nonzero() == 0


def test_batch_norm_scales_and_does_not_shift() -> None:
    norm = BiasFreeBatchNorm(3)
    with torch.no_grad():
        norm.gain.fill_(2.0)
    x = 5 + torch.tensor([1.0, 10.0, 100.0]).view(1, 3, 1, 1) * torch.randn(64, 3, 8, 8)
    out = norm(x)
    sd = (x.var(dim=(0, 2, 3), unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(out, 2 * x / sd.view(1, 3, 1, 1))
    update_running_sd(norm)
    torch.testing.assert_close(norm.running_sd.flatten(), 0.9 + 0.1 * sd)
    norm.eval()
    torch.testing.assert_close(norm(x), 2 * x / norm.running_sd)
    torch.testing.assert_close(norm(x), 2 * x / norm.running_sd)


def test_gradient_of_batch_norm() -> None:
    # its gradient is written by hand: against finite differences, with a mean that is not 0
    torch.manual_seed(0)
    norm = BiasFreeBatchNorm(3).double()
    x = (1 + torch.randn(4, 3, 5, 5, dtype=torch.float64)).requires_grad_()
    gain = torch.randn(1, 3, 1, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, g: torch.func.functional_call(norm, {"gain": g}, (x,)), (x, gain))


def test_batch_norm_of_bfloat16_computes_in_float32() -> None:
    norm = BiasFreeBatchNorm(3)
    x = (1 + torch.randn(64, 3, 8, 8)).bfloat16()
    out = norm(x)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, x / (x.float().var(dim=(0, 2, 3), keepdim=True, unbiased=False) + 1e-5).sqrt())


def test_initial_weights() -> None:
    torch.manual_seed(0)
    net = UNet(1, 64).build().apply(initialise)
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d) and m.in_channels == 64]
    for conv in convolutions:
        assert conv.weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.1)
    gains = torch.cat([m.gain.flatten() for m in net.modules() if isinstance(m, BiasFreeBatchNorm)])
    assert gains.abs().max() <= 0.025
    assert gains.std().item() == pytest.approx(2 / (9 * 64), rel=0.2)


def test_flops_are_those_of_the_convolutions() -> None:
    # 3×3 convolutions of 8 channels on 10×10 pixels: 1→8, 8→8, 8→1
    products = 100 * 9 * (1 * 8 + 8 * 8 + 8 * 1)
    assert cost.forward_flops(BFCNN(layers=3, width=8), 10) == 2 * products


def test_flops_of_the_papers_networks() -> None:
    giga = [cost.forward_flops(UNet.at(r), r) / 1e9 for r in (20, 40, 80, 160)]
    assert giga == pytest.approx([0.14, 1.12, 6.70, 35.7], rel=0.01)
