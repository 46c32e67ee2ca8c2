"""Denoisers for the benchmarks. What one costs depends on its shape, not on what it has learnt."""

from functools import cache

import torch
from torch import Tensor, nn

from benchmarks.harness import alternate
from gahb.models.architectures import Architecture
from gahb.models.layers import BiasFreeBatchNorm, Denoiser, initialise, update_running_sd

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def random(architecture: Architecture) -> Denoiser:
    """A denoiser with random weights, scaled such that activations keep their size from layer to layer."""
    torch.manual_seed(0)
    net = architecture.build().apply(initialise)
    for module in net.modules():
        if isinstance(module, BiasFreeBatchNorm):
            module.gain.data = 0.3 + torch.rand_like(module.gain)
    return Denoiser(net).to(DEVICE).eval()


class Flat(nn.Module):
    """f(y) = 1/2 + 0·net(y): costs what the network does, and samples as every denoiser does, without any training."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, y: Tensor) -> Tensor:
        return 0.5 + 0 * self.net(y)


def waves(count: int, side: int) -> Tensor:
    """Images (count, 1, side, side) in [0, 1], each a plane wave of its own direction, length and phase."""
    angle, phase = 2 * torch.pi * torch.rand(2, count, 1, 1, 1)
    cycles = 4 * torch.rand(count, 1, 1, 1)
    rows, columns = torch.meshgrid(*[torch.linspace(-1, 1, side)] * 2, indexing="ij")
    return 0.5 + 0.5 * torch.cos(cycles * (angle.cos() * rows + angle.sin() * columns) + phase)


def trained(architecture: Architecture, *, side: int = 16, steps: int = 100, batch: int = 16) -> Denoiser:
    """A denoiser that has learnt, on small images, to smooth: its Jacobian's spectrum falls as a denoiser's does."""
    torch.manual_seed(0)
    denoiser = Denoiser(architecture.build().apply(initialise)).to(DEVICE).train()
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=1e-3)
    for _ in range(steps):
        clean = waves(batch, side).to(DEVICE)
        noisy = clean + torch.rand(batch, 1, 1, 1, device=DEVICE) * torch.randn_like(clean)
        optimizer.zero_grad()
        (denoiser(noisy) - clean).square().sum().div(batch).backward()
        optimizer.step()
        update_running_sd(denoiser)
    return denoiser.eval()


@cache
def convolution_rate(dtype: torch.dtype) -> float:
    """FLOP/s of a 3×3 convolution that suits the device, 128 to 128 channels: the limit for networks of such."""
    count, side = (256, 80) if DEVICE.type == "cuda" else (16, 20)
    layer = nn.Conv2d(128, 128, 3, padding=1, bias=False, device=DEVICE, dtype=dtype)
    layer = layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from torch's types
    x = torch.randn(count, 128, side, side, device=DEVICE).to(dtype, memory_format=torch.channels_last)
    with torch.inference_mode():
        times = [alternate({"layer": lambda: layer(x)}, rounds=9)["layer"] for _ in range(3)]
    return 2 * 9 * 128 * 128 * count * side**2 / min(t.wall for t in times)
