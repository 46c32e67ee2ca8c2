"""The most memory that a training step holds, tracked operation by operation on tensors with shapes and no numbers.

Whatever the machine, tensors answer as those of a GPU, and what goes to the host's memory counts apart. As a program,
`python -m tests.gahb.training.tracked_memory`, it prints the tables of docs/planning.md.
"""

import itertools
import weakref
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from gahb.denoising.levels import evaluation_batch
from gahb.models.activation_checkpointing import LEVELS, Level, activation_checkpointing
from gahb.models.architectures import Architecture
from gahb.planning.gpu_sharing import available
from gahb.planning.placement import GPU_MEMORY
from gahb.training import cost
from gahb.training.step import MOMENTS, loss_function, training_step
from gahb.trial import Trial

CPU = torch.device("cpu")
aten = torch.ops.aten


class Live(TorchDispatchMode):
    """Counts the bytes of the tensors that live, on the device and on the host, and the most of each at once."""

    def __init__(self) -> None:
        super().__init__()
        self.live = {"device": 0, "host": 0}
        self.most = dict(self.live)
        self.known: set[int] = set()

    def count(self, tensor: Tensor, place: str) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self.known:
            self.known.add(key)
            weakref.finalize(storage, self.forget, key, size, place)
            self.live[place] += size
            self.most[place] = max(self.most[place], self.live[place])

    def forget(self, key: int, size: int, place: str) -> None:
        self.known.discard(key)
        self.live[place] -= size

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        pinned = kwargs.pop("pin_memory", False)
        made = function(*args, **kwargs)
        if function is aten.native_batch_norm.default:  # its statistics are float32, which the shapes' kernel lacks
            made = (made[0], made[1].float(), made[2].float())
        for tensor in tree_iter(made):
            if isinstance(tensor, Tensor):
                self.count(tensor, "host" if pinned else "device")
        return made


def softmax(tensor: Tensor, dim: int) -> Tensor:
    """As autocast does it on a GPU."""
    return torch.softmax(tensor.float(), dim)


def most(trial: Trial, level: Level) -> dict[str, int]:
    """Bytes on the "device" and on the "host" that a step of the trial holds at most, eagerly."""
    side = trial.dataset.resolution
    with (
        mock.patch.object(torch.Tensor, "is_cuda", property(lambda tensor: True)),
        mock.patch.object(torch.Tensor, "softmax", softmax),
        FakeTensorMode(),
        Live() as live,
    ):
        net = trial.architecture.build()
        for module in net.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None and parameter.dim() == 4:
                    weights = parameter.detach().contiguous(memory_format=torch.channels_last)
                    module._parameters[name] = nn.Parameter(weights)
        optimizer = torch.optim.Adam(net.parameters(), fused=True)
        for parameter in net.parameters():
            moments = {name: torch.zeros_like(parameter) for name in MOMENTS}
            optimizer.state[parameter] = {"step": torch.tensor(0.0), **moments}
        activation_checkpointing(net, level)
        loss_of = loss_function(trial, CPU, level)
        live.most = dict(live.live)
        noisy, target = torch.empty(2, trial.batch_size, 1, side, side)
        training_step(loss_of, net, optimizer, noisy, target, trial.precision)
        return live.most


def most_in_evaluation(architecture: Architecture, resolution: int) -> int:
    """Bytes that are alive at most while `evaluation_batch` images are denoised."""
    with mock.patch.object(torch.Tensor, "is_cuda", property(lambda tensor: True)), FakeTensorMode(), Live() as live:
        net = architecture.build().eval()
        with torch.no_grad():
            net(torch.empty(evaluation_batch(resolution), 1, resolution, resolution))
        return live.most["device"]


def rows(**shape: object) -> Iterator[str]:
    """Rows of the table: shape, precision, level, GB predicted and tracked on the device, and on the host."""
    for precision in ("float32", "bfloat16"):
        for level in LEVELS:
            trial = Trial.of({"dataset": "disks", "n_train": 8, "n_test": 8, "precision": precision, **shape})
            tracked, predicted, host = most(trial, level), cost.memory(trial, level), cost.host_memory(trial, level)
            name = f"{trial.architecture.name} {trial.dataset.resolution}²"
            yield (
                f"| {name} | {precision} | {level} | {predicted / 1e9:.2f} | {tracked['device'] / 1e9:.2f} | "
                f"{predicted / tracked['device']:.2f} | {host / 1e9:.2f} | {tracked['host'] / 1e9:.2f} |"
            )


def fitting() -> Iterator[str]:
    """Rows of another table: shape, precision, GB predicted at each level, level at which each kind of GPU starts."""
    for compiled, precision, side in itertools.product((False, True), ("float32", "bfloat16"), (80, 160)):
        flat = {"resolution": side, "n_train": 10_000, "precision": precision, "compile": compiled}
        trial = Trial.of({"dataset": "disks", **flat})
        room = [available(GPU_MEMORY[kind], 1) for kind in ("L4", "A100-40G", "L40S", "A100-80G", "H200")]
        cells = [f"{cost.memory(trial, level) / 1e9:.2g}" for level in LEVELS]
        cells += [str(cost.cheapest_level(trial, memory)) for memory in room]
        yield f"| {side}² | {precision}{', compiled' if compiled else ''} | {' | '.join(cells)} |"


if __name__ == "__main__":
    print(*fitting(), sep="\n")
    print("| network | precision | level | predicted | tracked | ratio | on the host | tracked |")
    print("|---|---|---|---|---|---|---|---|")
    for side in (20, 40, 80, 160):
        print(*rows(resolution=side), sep="\n", flush=True)
    print(*rows(resolution=40, architecture="bf_cnn"), sep="\n")
    print(*rows(resolution=80, architecture="transformer"), sep="\n")
