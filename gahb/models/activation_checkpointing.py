"""Activation checkpointing: less memory for more work, as a property of the network that is being trained.

At level "none" a forward pass keeps all that backward reads; at level "block" it keeps only the inputs of the network's
blocks, and backward computes the rest again. The same operations on the same numbers give the same bits. Parts of a
batch one after the other would not, because a batch is normalised as a whole.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gahb.models.layer_costs import LEVELS as LEVELS
from gahb.models.layer_costs import Level as Level


class BlockNetwork(nn.Module):
    """A network whose forward pass calls its blocks through `block`.

    A block runs a second time within backward. So whatever it writes into buffers must depend on its inputs, weights
    and other buffers alone.
    """

    level: Level = "none"

    def block(self, function: Callable[..., Tensor], *inputs: Any) -> Tensor:
        """function(*inputs), computed again in backward where the level says so and the network is in training mode."""
        if self.level == "none" or not self.training:
            return function(*inputs)
        return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)


def activation_checkpointing(net: nn.Module, level: Level) -> None:
    """Train the network at that level from here on; a network without blocks stays as it is."""
    for module in net.modules():
        if isinstance(module, BlockNetwork):
            module.level = level
