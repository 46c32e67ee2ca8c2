import pytest
import torch

from gahb.models.architectures import BFCNN, Architecture, UNet
from gahb.models.layers import BiasFreeBatchNorm, Denoiser, initialise, update_running_sd
from gahb.models.linearization import folded, linearised


def trained_a_little(architecture: Architecture) -> Denoiser:
    """Gains and running deviations of their own in every channel."""
    torch.manual_seed(0)
    denoiser = Denoiser(architecture.build().apply(initialise))
    for module in denoiser.modules():
        if isinstance(module, BiasFreeBatchNorm):
            module.gain.data = 0.3 + torch.rand_like(module.gain)
    denoiser(torch.randn(4, 1, 8, 8))
    update_running_sd(denoiser)
    return denoiser.eval()


@pytest.mark.parametrize("architecture", [UNet(1, 8), UNet(2, 4), BFCNN(5, 8, spacing=2), BFCNN(5, 8, first_relu=True)])
def test_a_folded_network_is_the_same_function_without_normalisation(architecture: Architecture) -> None:
    denoiser = trained_a_little(architecture)
    before = {key: tensor.clone() for key, tensor in denoiser.state_dict().items()}
    short = folded(denoiser)
    y = torch.randn(3, 1, 12, 12)
    with torch.no_grad():
        torch.testing.assert_close(short(y), denoiser(y), rtol=1e-5, atol=1e-5)
    assert not any(isinstance(module, BiasFreeBatchNorm) for module in short.modules())
    assert all(torch.equal(tensor, before[key]) for key, tensor in denoiser.state_dict().items())


@pytest.mark.parametrize("architecture", [UNet(2, 4), BFCNN(5, 8)])
def test_a_linearised_network_is_linear_and_is_the_network_near_its_image(architecture: Architecture) -> None:
    denoiser, y = trained_a_little(architecture).double(), torch.randn(1, 1, 12, 12, dtype=torch.float64)
    linear = linearised(denoiser, y)
    assert linear is not None
    a, b = torch.randn(2, 3, 1, 12, 12, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(linear(2 * a - 3 * b), 2 * linear(a) - 3 * linear(b))
        for near in (y, y * (1 + 1e-9), y + 1e-9 * a[:1]):
            torch.testing.assert_close(linear(near), denoiser(near), rtol=0, atol=1e-12)
