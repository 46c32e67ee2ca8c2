"""Weights from a file into the network they belong to."""

from collections.abc import Mapping

import torch
from torch import Tensor

from gahb.errors import UserError
from gahb.models.architectures import Architecture
from gahb.models.layers import Denoiser


def fit(architecture: Architecture, tensors: Mapping[str, Tensor]) -> Denoiser:
    """The denoiser of an architecture with the given weights, in evaluation mode, on the CPU.

    Raises:
        UserError: they are not the architecture's, by name or shape. Nothing of its size has been allocated.
    """
    with torch.device("meta"):
        wanted = {key: tuple(tensor.shape) for key, tensor in architecture.build().state_dict().items()}
    found = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    if wanted != found:
        key = min(key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key))
        raise UserError(
            f"looks like a {type(architecture).__name__} but its {key} is {found.get(key, 'missing')} "
            f"where {wanted.get(key, 'nothing')} is expected"
        )
    net = architecture.build()
    net.load_state_dict({key: tensor.float() for key, tensor in tensors.items()})
    return Denoiser(net).eval()
