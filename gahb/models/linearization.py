"""Networks that are done training, in forms that cost less.

In evaluation mode bias-free normalisation multiplies each channel by g/sd, so it folds into the convolution before it,

    (g/sd) · (w * x) = ((g/sd) w) * x,

exactly but for rounding. At one image y the ReLUs of a piecewise linear network keep some activations and drop the
others; with that choice kept, the network is its Jacobian at y, a linear map that can be applied to any image:

    J(y) v = net with each ReLU replaced by the mask that it was at y, applied to v.
"""

import copy

import torch
from torch import Tensor, nn

from gahb.models.layers import BiasFreeBatchNorm, Denoiser, PiecewiseLinear


def folded(net: nn.Module) -> nn.Module:
    """A copy for evaluation alone: normalisations folded into the convolutions before them, weights channels-last."""
    net = copy.deepcopy(net).eval().requires_grad_(False)
    for sequence in net.modules():
        if isinstance(sequence, nn.Sequential):
            for i in range(1, len(sequence)):
                before, norm = sequence[i - 1], sequence[i]
                if isinstance(before, nn.Conv2d) and isinstance(norm, BiasFreeBatchNorm):
                    before.weight.mul_((norm.gain / norm.running_sd).view(-1, 1, 1, 1))
                    sequence[i] = nn.Identity()
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from torch's types


def linearised(denoiser: object, y: Tensor, dtype: torch.dtype | None = None) -> nn.Module | None:
    """The Jacobian at y (1, C, H, W) as a network v ↦ J(y) v, (B, C, H, W) to the same; None unless the denoiser has a
    piecewise linear network. It computes in `dtype`, y's if None, but chooses the masks in y's."""
    if not (isinstance(denoiser, Denoiser) and isinstance(denoiser.net, PiecewiseLinear)):
        return None
    net = folded(denoiser)
    for parent in list(net.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.ReLU):
                setattr(parent, name, _Mask())
    with torch.no_grad():
        net(y)
    return net.to(dtype or y.dtype)


class _Mask(nn.Module):
    """The ReLU of the first input it sees, (1, channels, H, W), and from then on, in place, the multiplication with
    that ReLU's derivative."""

    derivative: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("derivative", None)

    def forward(self, x: Tensor) -> Tensor:
        if self.derivative is None:
            self.derivative = (x > 0).to(x)
        return x.mul_(self.derivative)
