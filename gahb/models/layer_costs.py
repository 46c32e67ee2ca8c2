"""What a layer costs, counted on shapes alone: by formula and without torch, so that a sweep can be planned quickly, or
by a forward pass of shapes where there is no formula.

A 3×3 convolution from c to c′ channels at p pixels has 9·c·c′ weights and takes 2·9·c·c′·p floating-point operations
an image (a multiplication and an addition are two). Backward needs its input again, and what is normalised after it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from gahb.errors import UserError

if TYPE_CHECKING:
    from torch import nn

Level = Literal["none", "layer", "block", "host"]
"""A level of activation checkpointing; see `gahb.models.activation_checkpointing`."""

TRANSIENT = 3
"""Tensors of the size of a layer's largest that are alive at once beside what is kept, where no formula says more."""

LEVELS: tuple[Level, ...] = ("none", "layer", "block", "host")
"""In the order of falling memory and rising cost."""


@dataclass(frozen=True)
class Layer:
    """Counts of a layer.

    Args:
        parameters: trained numbers.
        flops: operations of the forward pass, an image.
        kept: numbers that backward needs, an image.
        largest: numbers of the largest tensor that the layer reads or writes, an image.
        cheap: those of `kept` that every level of activation checkpointing but "none" computes again.
        product: numbers, an image, that are alive at once in backward of its product: its input, and the gradients of
            input and result.
        wide: numbers in float32 in any precision, an image, that are alive at once in backward of what follows the
            product, or precedes it.
        opens: numbers, an image, of the inputs of the block that begins with this layer, which level "block" keeps; 0
            within a block.
        shared: numbers, an image, that the layer reads besides, and that another block opens with.
        float32: those of `cheap` that backward reads in that, and of which a lower precision keeps a second copy.
    """

    parameters: int
    flops: int
    kept: int
    largest: int
    cheap: int = 0
    product: int = 0
    wide: int = 0
    opens: int = 0
    shared: int = 0
    float32: int = 0


def convolution(inputs: int, outputs: int, pixels: int, *, side: int = 3, norm: bool = True) -> Layer:
    """A convolution between numbers of channels at so many pixels, followed by normalisation and ReLU or by neither.

    Backward of the normalisation holds its input, the gradient of its result and two tensors more.
    """
    return Layer(
        parameters=inputs * outputs * side**2 + (outputs if norm else 0),
        flops=2 * inputs * outputs * side**2 * pixels,
        kept=(inputs + (outputs if norm else 0)) * pixels,
        largest=max(inputs, outputs) * pixels,
        cheap=inputs * pixels,
        product=(2 * inputs + outputs) * pixels,
        wide=4 * outputs * pixels if norm else 0,
    )


def pooling(channels: int, pixels: int, layer: Layer) -> Layer:
    """2×2 average pooling to so many pixels, and the layer that reads its result."""
    read = 4 * channels * pixels
    return replace(layer, kept=layer.kept + read, cheap=layer.cheap + read, largest=max(layer.largest, read))


def doubling(inputs: int, outputs: int, pixels: int) -> Layer:
    """A 2×2 transposed convolution of stride 2 from so many pixels to four times as many."""
    return Layer(
        parameters=4 * inputs * outputs,
        flops=2 * 4 * inputs * outputs * pixels,
        kept=inputs * pixels,
        largest=max(inputs, 4 * outputs) * pixels,
        cheap=inputs * pixels,
        product=(2 * inputs + 4 * outputs) * pixels,
    )


def linear(inputs: int, outputs: int, tokens: int) -> Layer:
    """A linear map of each token."""
    return Layer(
        parameters=inputs * outputs,
        flops=2 * inputs * outputs * tokens,
        kept=inputs * tokens,
        largest=max(inputs, outputs) * tokens,
        product=(3 * inputs + outputs) * tokens,
    )


def attention(width: int, heads: int, tokens: int) -> Layer:
    """Attention between its linear maps, with a gain a head: two products of tokens × tokens, whose weights are kept
    beside queries, keys and values, from which they can be computed again."""
    weights, rest = heads * tokens**2, width * tokens
    return Layer(
        parameters=heads,
        flops=2 * 2 * width * tokens**2,
        kept=weights + 6 * rest,
        largest=max(weights, 3 * rest),
        cheap=weights + 3 * rest,
        wide=2 * weights + 7 * rest,
        float32=weights,
    )


def block(first: Layer, *rest: Layer, opens: int) -> list[Layer]:
    """The layers as a block of activation checkpointing whose inputs, which the first layer reads, are so many numbers,
    an image."""
    return [replace(first, cheap=first.cheap or first.kept, opens=opens), *rest]


def counted(build: Callable[[], "nn.Module"], resolution: int, channels: int = 1) -> list[Layer]:
    """The counts of each module without children, and of what stands between them, from a forward pass on the meta
    device, which has shapes and no numbers.

    Args:
        build: makes the network.
        resolution, channels: of the images.

    Raises:
        UserError: it cannot be built or run on shapes, or changes the images' size.
    """
    import torch
    from torch.autograd.graph import saved_tensors_hooks
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        try:
            net = build()
        except Exception as error:  # of a guest, too
            raise UserError(f"the network cannot be built ({type(error).__name__}: {error})") from None
        y = torch.empty(1, channels, resolution, resolution)
    seen = _Seen(net)
    try:
        with FlopCounterMode(display=False) as counter, saved_tensors_hooks(seen.keep, lambda tensor: tensor):
            shape = net(y).shape
    except Exception as error:  # a guest's network may raise anything
        raise UserError(f"the network cannot be run on shapes ({type(error).__name__}: {error})") from None
    if shape != y.shape:
        raise UserError(f"the network makes {tuple(shape)} of images {tuple(y.shape)}; it must keep their shape")
    flops = {name: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    found = {
        name: (_parameters(module), flops.get(f"{type(net).__name__}.{name}", 0))
        for module, name in seen.leaves.items()
    }
    rest = sum(p.numel() for p in net.parameters()) - sum(parameters for parameters, _ in found.values())
    found[""] = rest, counter.get_total_flops() - sum(operations for _, operations in found.values())
    return seen.layers(found)


class _Seen:
    """What a forward pass keeps, by the name of a module without children; of what stands between them it is "", or
    the name of a block of activation checkpointing, which no module has."""

    def __init__(self, net: "nn.Module") -> None:
        from gahb.models.activation_checkpointing import BlockNetwork

        self.own = {p.untyped_storage()._cdata for p in net.parameters()}
        self.leaves = {module: name for name, module in net.named_modules() if not any(True for _ in module.children())}
        self.kept: dict[str, dict[int, int]] = {name: {} for name in ("", *self.leaves.values())}
        self.largest = dict.fromkeys(self.kept, 0)
        self.opens = {"": 0}  # block → numbers that it reads
        self.block: dict[str, str] = {}  # module → block in which it ran first
        self.inside = [""]
        for module in self.leaves:
            module.register_forward_pre_hook(self.enter)
            module.register_forward_hook(self.leave)
        for module in net.modules():
            if isinstance(module, BlockNetwork):
                module.__dict__["block"] = self.run_block

    def enter(self, module: "nn.Module", inputs: Any) -> None:
        name = self.leaves[module]
        self.block.setdefault(name, next(found for found in reversed(self.inside) if found in self.opens))
        self.inside.append(name)

    def leave(self, module: "nn.Module", inputs: Any, output: Any) -> None:
        name = self.inside.pop()
        self.largest[name] = max(self.largest[name], *_sizes((*inputs, output)))

    def run_block(self, function: Callable[..., Any], *inputs: Any) -> Any:
        name = f"block {len(self.opens)}"
        self.opens[name] = sum(_sizes(inputs))
        self.kept[name], self.largest[name], self.block[name] = {}, 0, name
        self.inside.append(name)
        result = function(*inputs)
        self.inside.pop()
        return result

    def keep(self, tensor: Any) -> Any:
        name, storage = self.inside[-1], tensor.untyped_storage()
        if storage._cdata not in self.own and not any(storage._cdata in found for found in self.kept.values()):
            self.kept[name][storage._cdata] = storage.nbytes() // 4
            self.largest[name] = max(self.largest[name], tensor.numel())
        return tensor

    def layers(self, found: dict[str, tuple[int, int]]) -> list[Layer]:
        """The layers, block after block, with parameters and operations as found. What is in no block counts as one."""
        layers = []
        for block, opens in self.opens.items():
            names = [name for name in self.kept if self.block.get(name, "") == block]
            for name in sorted(names, key=lambda name: name != block):  # the block's own comes first
                kept, largest = sum(self.kept[name].values()), self.largest[name]
                whole = Layer(*found.get(name, (0, 0)), kept, largest, wide=TRANSIENT * largest + kept)
                if not block:
                    whole = replace(whole, cheap=kept, opens=kept, wide=TRANSIENT * largest)
                elif name == block:
                    whole = replace(whole, opens=opens)
                layers.append(whole)
        return [layer for layer in layers if layer.parameters or layer.flops or layer.kept or layer.opens]


def _sizes(values: Sequence[Any]) -> list[int]:
    return [value.numel() for value in values if hasattr(value, "numel")]


def _parameters(module: "nn.Module") -> int:
    return sum(p.numel() for p in module.parameters(recurse=False))
