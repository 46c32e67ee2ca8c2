"""What a layer costs, counted on shapes alone: by formula and without torch, so that a sweep can be planned quickly, or
by a forward pass of shapes where there is no formula.

A 3×3 convolution from c to c′ channels at p pixels has 9·c·c′ weights and takes 2·9·c·c′·p floating-point operations
an image (a multiplication and an addition are two). Backward needs its input again, and what is normalised after it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from gahb.errors import UserError

if TYPE_CHECKING:
    from torch import nn

Level = Literal["none", "layer", "block", "host"]
"""A level of activation checkpointing; see `gahb.models.activation_checkpointing`."""

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
    """

    parameters: int
    flops: int
    kept: int
    largest: int


def convolution(inputs: int, outputs: int, pixels: int, *, side: int = 3, norm: bool = True) -> Layer:
    """A convolution between numbers of channels at so many pixels, followed by normalisation and ReLU or by neither."""
    return Layer(
        parameters=inputs * outputs * side**2 + (outputs if norm else 0),
        flops=2 * inputs * outputs * side**2 * pixels,
        kept=(inputs + (outputs if norm else 0)) * pixels,
        largest=max(inputs, outputs) * pixels,
    )


def doubling(inputs: int, outputs: int, pixels: int) -> Layer:
    """A 2×2 transposed convolution of stride 2 from so many pixels to four times as many."""
    return Layer(
        parameters=4 * inputs * outputs,
        flops=2 * 4 * inputs * outputs * pixels,
        kept=inputs * pixels,
        largest=max(inputs, 4 * outputs) * pixels,
    )


def linear(inputs: int, outputs: int, tokens: int) -> Layer:
    """A linear map of each token."""
    return Layer(
        parameters=inputs * outputs,
        flops=2 * inputs * outputs * tokens,
        kept=inputs * tokens,
        largest=max(inputs, outputs) * tokens,
    )


def attention(width: int, heads: int, tokens: int) -> Layer:
    """Attention between its linear maps, with a gain a head: two products of tokens × tokens, whose weights are kept
    beside queries, keys and values."""
    return Layer(
        parameters=heads,
        flops=2 * 2 * width * tokens**2,
        kept=heads * tokens**2 + 6 * width * tokens,
        largest=max(heads * tokens**2, 3 * width * tokens),
    )


def counted(build: Callable[[], "nn.Module"], resolution: int) -> list[Layer]:
    """The counts of each module without children, and of what stands between them, from a forward pass on the meta
    device, which has shapes and no numbers.

    Args:
        build: makes the network.

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
        y = torch.empty(1, 1, resolution, resolution)
    own = {p.untyped_storage()._cdata for p in net.parameters()}
    leaves = {module: name for name, module in net.named_modules() if not any(True for _ in module.children())}
    between = ""
    inside = [between]
    kept: dict[str, dict[int, int]] = {name: {} for name in (between, *leaves.values())}
    largest = dict.fromkeys(kept, 0)

    def enter(module: "nn.Module", inputs: Any) -> None:
        inside.append(leaves[module])

    def leave(module: "nn.Module", inputs: Any, output: Any) -> None:
        tensors = [t for t in (*inputs, output) if isinstance(t, torch.Tensor)]
        name = inside.pop()
        largest[name] = max(largest[name], *(t.numel() for t in tensors))

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own and not any(storage._cdata in found for found in kept.values()):
            kept[inside[-1]][storage._cdata] = storage.nbytes() // 4
            largest[inside[-1]] = max(largest[inside[-1]], tensor.numel())
        return tensor

    for module in leaves:
        module.register_forward_pre_hook(enter)
        module.register_forward_hook(leave)
    try:
        with FlopCounterMode(display=False) as counter, saved_tensors_hooks(keep, lambda tensor: tensor):
            shape = net(y).shape
    except Exception as error:  # a guest's network may raise anything
        raise UserError(f"the network cannot be run on shapes ({type(error).__name__}: {error})") from None
    if shape != y.shape:
        raise UserError(f"the network makes {tuple(shape)} of images {tuple(y.shape)}; it must keep their shape")
    flops = {name: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    rest = sum(p.numel() for p in net.parameters()) - sum(_parameters(module) for module in leaves)
    total = counter.get_total_flops()
    prefix = type(net).__name__
    found = [
        Layer(_parameters(module), flops.get(f"{prefix}.{name}", 0), sum(kept[name].values()), largest[name])
        for module, name in leaves.items()
    ]
    loose = Layer(rest, total - sum(layer.flops for layer in found), sum(kept[between].values()), largest[between])
    return [layer for layer in (*found, loose) if layer != Layer(0, 0, 0, layer.largest)]


def _parameters(module: "nn.Module") -> int:
    return sum(p.numel() for p in module.parameters(recurse=False))
