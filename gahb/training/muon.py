"""Muon: momentum, made orthogonal (Jordan et al. 2024), at the scale of Liu et al. (2025), "Muon is scalable for LLM
training".

For a kernel W as a matrix (r, c), r outputs by c = inputs · side², with gradient G and momentum μ = 0.95,

    M ← μ M + (1 - μ) G,    U = (1 - μ) G + μ M   (Nesterov),    W ← W - η · 0.2 sqrt(max(r, c)) · orth(U),

where orth(U) = V Wᵀ of the singular value decomposition V S Wᵀ, approximately: five Newton-Schulz steps bring every
singular value to between 0.7 and 1.2. The factor gives an update the root mean square that Adam's has. Kernels that
read or write the image, and gains, are trained by Adam at half the rate.

`torch.optim.Muon` takes matrices alone, one by one, computes in bfloat16, and a CUDA graph cannot hold it, for its rate
is a number of the host.
"""

from collections import defaultdict

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
MOMENTUM_BUFFER = "momentum_buffer"
"""The momentum, under its name in the optimizer's state."""

ADAM_SHARE = 0.5
"""Adam's rate, as a share of the rate."""

SCALE = 0.2
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5


class Muon(torch.optim.Optimizer):
    """Muon on the kernels of a network, Adam on the rest; its parameter groups are one of each.

    Args:
        net: the network.
        rate: η.
        betas: Adam's.
        image_channels: of the images; a kernel of so many inputs or outputs reads or writes them.
    """

    def __init__(self, net: nn.Module, rate: float, betas: tuple[float, float], image_channels: int) -> None:
        kernels = [p for p in net.parameters() if p.ndim > 1 and min(p.shape[:2]) > image_channels]
        self._kernels = set(kernels)
        others = {"params": [p for p in net.parameters() if p not in self._kernels], "share": ADAM_SHARE}
        self.adam = torch.optim.Adam([others], lr=rate * ADAM_SHARE, betas=betas, fused=True)
        super().__init__([{"params": kernels}], {"lr": rate})
        self.param_groups += self.adam.param_groups
        self.adam.state = self.state
        by_shape = defaultdict(list)
        for kernel in kernels:
            by_shape[kernel.flatten(1).shape].append(kernel)
        self._alike = list(by_shape.values())

    def is_orthogonal(self, parameter: Tensor) -> bool:
        """Whether Muon trains the parameter, rather than Adam."""
        return parameter in self._kernels

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step of both."""
        rate = self.param_groups[0]["lr"]
        for kernels in self._alike:
            updates = orthogonal(torch.stack([self._momentum(kernel).flatten(1) for kernel in kernels]))
            scale = SCALE * max(updates.shape[1:]) ** 0.5
            for kernel, update in zip(kernels, updates * (-scale * rate), strict=True):
                kernel.add_(update.view_as(kernel))
        self.adam.step()

    def _momentum(self, kernel: Tensor) -> Tensor:
        gradient, momentum = kernel.grad, self.state[kernel][MOMENTUM_BUFFER]
        assert gradient is not None
        momentum.lerp_(gradient, 1 - MOMENTUM)
        return gradient.lerp(momentum, MOMENTUM)


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices (n, r, c) with the same singular vectors and singular values near 1."""
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = a * x + torch.baddbmm(gram, gram, gram, beta=b, alpha=c) @ x
    return x.mT if tall else x
