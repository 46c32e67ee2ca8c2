"""Tensors on a CUDA device that have shapes, types and devices but no numbers, where there is no GPU.

What a GPU would refuse is seen: two devices or two types in an operation, and a look at a number where a CUDA graph is
recorded. torch's FakeTensorMode does it; a build of torch without CUDA lacks two things that stand here, the device's
guard and a backward pass that knows no streams.
"""

import contextlib
import ctypes
import functools
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

GUARD = """
#include <c10/core/impl/DeviceGuardImplInterface.h>
C10_REGISTER_GUARD_IMPL(CUDA, c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::CUDA>)
"""


@functools.cache
def _register_guard() -> None:
    """Let indexing and `to` find a guard that does nothing, as they do in a build with CUDA on a machine without."""
    if torch.backends.cuda.is_built():
        return
    torch_folder = Path(torch.__file__).parent
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "guard.cpp", Path(folder) / "guard.so"
        source.write_text(GUARD)
        flags = [
            "-std=c++20",
            "-shared",
            "-fPIC",
            f"-I{torch_folder / 'include'}",
            f"-L{torch_folder / 'lib'}",
            "-lc10",
        ]
        subprocess.run(["g++", source, "-o", library, *flags], check=True)
        ctypes.CDLL(str(library))


@contextlib.contextmanager
def fake_cuda() -> Iterator[torch.device]:
    """A CUDA device for the block, in which all new tensors are without numbers."""
    _register_guard()
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        patch.setattr(torch, "Generator", _Generator)
        patch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
        patch.setattr("torch.utils.weakref.getweakrefs", lambda tensor: [])  # of the mode's own
        patch.setattr(torch._C, "_current_graph_task_id", lambda: 0)  # of one backward pass
        patch.setattr(Tensor, "backward", lambda loss: _accumulate(loss))
        patch.setattr(torch.autograd, "grad", _gradients)
        adam = stack.enter_context(torch.library._scoped_library("aten", "IMPL"))
        adam.impl(
            "_fused_adam_.tensor_lr", lambda *tensors, **numbers: None, "Meta"
        )  # changes them in place, in theory
        with _Mode(shape_env=ShapeEnv()):
            yield torch.device("cuda", 0)


class _Mode(FakeTensorMode):
    def __deepcopy__(self, memo: dict[int, Any]) -> "_Mode":
        """Itself, as a copied network stays in it."""
        return self


class _Generator(torch.Generator):
    """One for every device, which the CPU's is where no numbers are drawn."""

    def __new__(cls, device: Any = "cpu") -> Any:
        return super().__new__(cls, "cpu")


def _accumulate(loss: Tensor) -> None:
    for node, gradients in _backward([loss], [torch.ones_like(loss)]).items():
        if (variable := getattr(node, "variable", None)) is not None:
            variable.grad = gradients[0] if variable.grad is None else variable.grad + gradients[0]


def _gradients(outputs: Any, inputs: Any, grad_outputs: Any = None, **_: Any) -> tuple[Tensor, ...]:
    """torch.autograd.grad of leaves."""
    listed = [value if isinstance(value, Sequence) else [value] for value in (outputs, inputs, grad_outputs)]
    found = {id(n.variable): g[0] for n, g in _backward(listed[0], listed[2]).items() if hasattr(n, "variable")}
    return tuple(found[id(value)] for value in listed[1])


@torch.no_grad()
def _backward(outputs: Sequence[Tensor], gradients: Sequence[Tensor]) -> dict[Any, list[Any]]:
    """The gradients with respect to the outputs of every node behind `outputs`, each node's function called once all
    that use it were."""
    users: dict[Any, int] = defaultdict(int)
    behind, seen = [output.grad_fn for output in outputs], dict[Any, None]()  # in an order that is always the same
    while behind:
        node = behind.pop()
        if node not in seen:
            seen[node] = None
            for following, _ in node.next_functions:
                if following is not None:
                    users[following] += 1
                    behind.append(following)
    arrived: dict[Any, list[Any]] = {node: [None] * len(node._input_metadata) for node in seen}
    for output, gradient in zip(outputs, gradients, strict=True):
        arrived[output.grad_fn][output.output_nr] = gradient
    ready = [node for node in seen if not users[node]]
    while ready:
        node = ready.pop()
        if hasattr(node, "variable"):
            continue
        left = (node.apply if hasattr(node, "apply") else node)(*arrived[node])
        left = left if isinstance(left, tuple) else (left,)
        for (following, number), gradient in zip(node.next_functions, left, strict=True):
            if following is None:
                continue
            if gradient is not None:
                output_of = following._input_metadata[number]
                gradient = gradient.sum_to_size(output_of.shape).to(output_of.dtype)  # as torch's own engine does
                earlier = arrived[following][number]
                arrived[following][number] = gradient if earlier is None else earlier + gradient
            users[following] -= 1
            if not users[following]:
                ready.append(following)
    return arrived


aten = torch.ops.aten

LOOKS = {
    aten._local_scalar_dense, aten.is_nonzero, aten.equal, aten.nonzero, aten.masked_select, aten._unique2,
    aten.unique_dim, aten.unique_consecutive, aten.bincount,
}  # fmt: skip
"""Operations for which the host waits for the device, or whose result's shape is in the numbers."""


class Operations(TorchDispatchMode):
    """All operations of a block within `fake_cuda`, with what they are given: `seen`; and those of them that a CUDA
    graph cannot hold: `unfit`."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.unfit: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "prim":
            return func(*args, **(kwargs or {}))
        given = tree_flatten((args, kwargs or {}))[0]
        self.seen.append(f"{func} {[_described(value) for value in given]}")
        if func.overloadpacket in LOOKS or self._by_mask(func, args):
            self.unfit.append(str(func))
        result = func(*args, **(kwargs or {}))
        tensors = [value for value in (*given, *tree_flatten(result)[0]) if isinstance(value, Tensor)]
        if any(tensor.device.type != "cuda" for tensor in tensors):
            self.unfit.append(str(func))
        return result

    @staticmethod
    def _by_mask(func: Any, args: Any) -> bool:
        indexes = func.overloadpacket in (aten.index, aten.index_put, aten.index_put_)
        return indexes and any(index.dtype is torch.bool for index in args[1] if index is not None)


def _described(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.dtype, tuple(value.shape), value.stride(), value.device
    return value if isinstance(value, int | float | str | torch.dtype | torch.device) else type(value)
