"""Whether a guest's network is one that gahb can train and analyse: it keeps an image's size, and is homogeneous.

    net(a·y) = a·net(y) for a > 0 in evaluation mode, whatever the weights

as for every network without biases; the adaptive basis and the sampler rest on it.
"""

import torch
from torch import Tensor, nn

from gahb.errors import UserError
from gahb.models.architectures import Architecture

TOLERANCE = 1e-3
"""Of ‖net(2y) - 2·net(y)‖ / ‖2·net(y)‖, in float32."""


def check_network(architecture: Architecture, resolution: int) -> None:
    """Look at the network on random images of a resolution, with weights none of which is 0, after a training step's
    forward pass.

    Raises:
        UserError: it cannot be built or called, changes the images' size, or is not homogeneous.
    """
    what = f"the architecture {architecture.name!r}"
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        try:
            net = architecture.build()
            _perturb(net)
            y = torch.randn(2, architecture.image_channels, resolution, resolution)
            net.train()(y)
            once, twice = net.eval()(y), net(2 * y)
        except Exception as error:  # a guest's network may raise anything
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise UserError(f"{what} fails on images of {resolution}×{resolution} ({reason})") from None
    if not isinstance(once, Tensor) or once.shape != y.shape:
        gives = tuple(once.shape) if isinstance(once, Tensor) else type(once).__name__
        raise UserError(f"{what} makes {gives} of images {tuple(y.shape)}; it must keep their shape")
    off = float((twice - 2 * once).norm() / (2 * once).norm())
    if not off <= TOLERANCE:
        raise UserError(
            f"{what} is not homogeneous: net(2y) is {100 * off:.2g} % away from 2·net(y); leave out biases and means"
        )


def _perturb(net: nn.Module) -> None:
    for parameter in net.parameters():
        parameter.add_(torch.randn_like(parameter) * (0.1 * float(parameter.abs().mean()) or 0.1))
