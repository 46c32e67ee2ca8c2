"""Denoisers for the benchmarks. What one costs depends on its shape, not on what it has learnt."""

import torch
from torch import Tensor, nn

from gahb.models.architectures import Architecture
from gahb.models.layers import BiasFreeBatchNorm, Denoiser, initialise

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
