"""Activation checkpointing: less memory for more work, as a property of the network that is being trained.

Backward reads activations of the forward pass. A level says which are kept, and backward computes the rest again:

- "none": all of them are kept;
- "layer": what is cheap is computed again: normalisation, ReLU, pooling, concatenation, the weights of attention. What
  remains is the result of each convolution or linear map;
- "block": only the inputs of the network's blocks are kept. Backward computes a block again at level "layer";
- "host": as "block", and what is kept waits in the host's memory, copied out in the forward pass and back in backward.

The same operations on the same numbers give the same bits. Parts of a batch one after the other would not, because a
batch is normalised as a whole.
"""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint
from torch.utils.weak import WeakIdKeyDictionary

from gahb.models.layer_costs import LEVELS as LEVELS
from gahb.models.layer_costs import Level as Level
from gahb.models.layers import BiasFreeBatchNorm

Result = TypeVar("Result")

SMALL = 2**20
"""Bytes of a tensor that is not worth the way to the host."""


class BlockNetwork(nn.Module):
    """A network, or a part of one, whose forward pass calls its blocks through `block`, and what is cheap in them
    through `layer`.

    Both run a second time within backward. So whatever they write into buffers must depend on their inputs, weights and
    other buffers alone. Neither may change an input in place.
    """

    level: Level = "none"

    def block(self, function: Callable[..., Tensor], *inputs: Any) -> Tensor:
        """function(*inputs), computed again in backward at levels "block" and "host" in training mode."""
        return self._again(function, *inputs) if self.level in ("block", "host") else function(*inputs)

    def layer(self, function: Callable[..., Tensor], *inputs: Any) -> Tensor:
        """function(*inputs), computed again in backward at every level but "none" in training mode, up to the last
        result that backward reads: not a convolution at its end. Compiled, a block within which it lies is computed
        again as a whole."""
        inside = torch.compiler.is_compiling() and self.level != "layer"
        return function(*inputs) if self.level == "none" or inside else self._again(function, *inputs)

    def chain(self, modules: Iterable[nn.Module], enter: Callable[..., Tensor], *inputs: Any) -> Tensor:
        """The modules one after the other on enter(*inputs). Each of their `parts` that ends with a convolution is a
        `layer`, the first of them with `enter`."""
        if self.level == "none" or not self.training:
            return _chain(modules, enter, *inputs)
        first, *rest = parts(modules)
        x = self._part(first, enter, *inputs)
        for part in rest:
            x = self._part(part, identity, x) if isinstance(part[-1], nn.Conv2d) else _chain(part, identity, x)
        return x

    def _part(self, modules: list[nn.Module], enter: Callable[..., Tensor], *inputs: Any) -> Tensor:
        if torch.compiler.is_compiling():  # where computing again does not end before the convolution
            return cast(Tensor, modules[-1](self.layer(_chain, modules[:-1], enter, *inputs)))
        return self.layer(_chain, modules, enter, *inputs)

    def _again(self, function: Callable[..., Tensor], *inputs: Any) -> Tensor:
        if not self.training:
            return function(*inputs)
        return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)


def identity(x: Tensor) -> Tensor:
    return x


def _chain(modules: Iterable[nn.Module], enter: Callable[..., Tensor], *inputs: Any) -> Tensor:
    x = enter(*inputs)
    del inputs
    for module in modules:
        x = module(x)
    return x


def parts(modules: Iterable[nn.Module]) -> list[list[nn.Module]]:
    """The modules cut before each normalisation but one at their beginning."""
    found: list[list[nn.Module]] = [[]]
    for module in modules:
        if found[-1] and isinstance(module, BiasFreeBatchNorm):
            found.append([])
        found[-1].append(module)
    return found


def activation_checkpointing(net: nn.Module, level: Level) -> None:
    """Train the network at that level from here on; a network without blocks stays as it is. At level "host" its
    forward pass must run in `kept_on_host`, too."""
    for module in net.modules():
        if isinstance(module, BlockNetwork):
            module.level = level


def kept_on_host(function: Callable[..., Result]) -> Callable[..., Result]:
    """The function of a network and more, such that what its backward keeps waits in the host's memory, pinned if it
    comes from a GPU. The network's parameters and small tensors stay."""

    def call(net: nn.Module, *inputs: Any) -> Result:
        parameters = {parameter.untyped_storage()._cdata for parameter in net.parameters()}
        copies: WeakIdKeyDictionary = WeakIdKeyDictionary()  # a tensor that is read twice travels once

        def pack(tensor: Tensor) -> Tensor | tuple[torch.device, Tensor]:
            storage = tensor.untyped_storage()
            if tensor.nbytes < SMALL or storage._cdata in parameters:
                return tensor
            part = (tensor._version, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype)
            of_storage = copies.setdefault(storage, {})
            if part not in of_storage:
                copy = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
                of_storage[part] = copy.copy_(tensor.detach(), non_blocking=True)
            return tensor.device, of_storage[part]

        def unpack(packed: Tensor | tuple[torch.device, Tensor]) -> Tensor:
            if isinstance(packed, Tensor):
                return packed
            device, copy = packed
            return torch.empty_like(copy, device=device).copy_(copy, non_blocking=True)

        with saved_tensors_hooks(pack, unpack):
            return function(net, *inputs)

    return call
