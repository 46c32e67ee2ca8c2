import itertools
import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from gahb.models.activation_checkpointing import LEVELS
from gahb.models.architectures import ARCHITECTURES, BFCNN, Architecture, UNet
from gahb.training import cost
from gahb.trial import Trial
from tests.gahb.training import tracked_memory

NETS = [
    UNet(blocks=1, width=5),
    UNet(blocks=2, width=8),
    UNet(blocks=4, width=4),
    BFCNN(layers=6, width=4),
    BFCNN(layers=9, width=4, spacing=3, first_relu=True),
    *(cls.at(40) for cls in ARCHITECTURES.values()),
]
SIDE = 32


@pytest.mark.parametrize("architecture", NETS)
def test_counts_are_those_of_the_network(architecture: Architecture) -> None:
    with torch.device("meta"):
        net = architecture.build()
        with FlopCounterMode(display=False) as counter:
            net(torch.empty(1, 1, SIDE, SIDE))
    assert cost.parameters(architecture, SIDE) == sum(p.numel() for p in net.parameters())
    assert cost.forward_flops(architecture, SIDE) == counter.get_total_flops()


@pytest.mark.parametrize("architecture", NETS)
def test_what_backward_keeps(architecture: Architecture) -> None:
    net = architecture.build()
    own = {p.untyped_storage().data_ptr() for p in net.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = net(torch.rand(2, 1, SIDE, SIDE))
    predicted = 2 * 4 * sum(layer.kept for layer in architecture.counts(SIDE))
    assert out.requires_grad and predicted == pytest.approx(sum(kept.values()), rel=0.08)


@pytest.mark.parametrize(
    "size",
    [
        {"resolution": 40, "batch_size": 32, "images": 64, "architecture": "bf_cnn", "layers": 10},
        pytest.param({"resolution": 20, "batch_size": 256, "images": 512}, marks=pytest.mark.slow),
        pytest.param({"resolution": 80, "batch_size": 2, "images": 4}, marks=pytest.mark.slow),
    ],
)
def test_memory_is_predicted_within_a_factor_of_one_and_a_half(size: dict[str, object]) -> None:
    program = Path(__file__).with_name("child_memory.py")
    ended = subprocess.run([sys.executable, program, json.dumps(size)], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert 1 / 1.5 < float(ended.stdout) < 1.5


def trial(**keys: object) -> Trial:
    return Trial.of({"dataset": "disks", "resolution": 160, "n_train": 8, "n_test": 8, **keys})


UNET = {"resolution": 160}  # of Table 1, at its batch of 512
BF_CNN = {"resolution": 40, "architecture": "bf_cnn", "layers": 9}
TRANSFORMER = {"resolution": 80, "architecture": "transformer", "depth": 2}
BFLOAT16 = {"precision": "bfloat16"}
NETWORKS = [UNET, {**UNET, **BFLOAT16}, BF_CNN, TRANSFORMER, {**TRANSFORMER, **BFLOAT16}]


@pytest.mark.parametrize("keys", NETWORKS, ids=lambda keys: "-".join(map(str, keys.values())))
def test_memory_at_every_level_is_bounded_by_what_is_predicted(keys: dict) -> None:
    large = trial(**keys)
    tracked = [tracked_memory.most(large, level) for level in LEVELS]
    for level, found in zip(LEVELS, tracked, strict=True):
        assert 1 <= cost.memory(large, level) / found["device"] < 1.35, level
    assert all(a["device"] >= b["device"] for a, b in itertools.pairwise(tracked))
    assert tracked[0]["device"] > 1.5 * tracked[-1]["device"]
    assert 1 <= cost.host_memory(large, "host") / tracked[-1]["host"] <= 2  # blocks of pinned memory are powers of two
    assert not any(
        found["host"] or cost.host_memory(large, level) for level, found in zip(LEVELS[:3], tracked, strict=False)
    )


@pytest.mark.parametrize("keys", [UNET, BF_CNN, TRANSFORMER], ids=lambda keys: "-".join(map(str, keys.values())))
def test_memory_of_an_evaluation_is_bounded_by_what_is_predicted(keys: dict) -> None:
    evaluated = trial(**keys, batch_size=1, n_test=512)
    tracked = tracked_memory.most_in_evaluation(evaluated.architecture, evaluated.dataset.resolution)
    assert 1 <= cost.memory(evaluated) / tracked < 1.7


@dataclass(frozen=True)
class WithoutFormula(BFCNN):
    """BF-CNN as a guest's network that is counted by running shapes through it."""

    name = "without_formula"
    counts = Architecture.counts


def test_memory_of_a_network_without_formula_is_bounded() -> None:
    known = trial(**BF_CNN)
    guest = replace(known, architecture=WithoutFormula(layers=9))
    for level in LEVELS:
        assert cost.memory(guest, level) >= 0.98 * tracked_memory.most(known, level)["device"]
    spared = [cost.memory(guest, level) for level in cost.levels_to_try(guest, 1e12, on_gpu=True)]
    assert spared[0] == cost.memory(guest) and spared[-1] < spared[0]


@pytest.mark.parametrize("on_gpu", [True, False])
@pytest.mark.parametrize("keys", NETWORKS, ids=lambda keys: "-".join(map(str, keys.values())))
def test_more_memory_asks_for_no_costlier_level(keys: dict, on_gpu: bool) -> None:
    large = trial(**keys)
    offered = [10 ** (9 + i / 16) for i in range(40)]
    levels = [cost.cheapest_level(large, memory, on_gpu=on_gpu) for memory in offered]
    fitting = [(memory, level) for memory, level in zip(offered, levels, strict=True) if level]
    assert all(cost.memory(large, level, on_gpu=on_gpu) <= memory for memory, level in fitting)
    found = [LEVELS.index(level) for _, level in fitting]
    assert found == sorted(found, reverse=True) and found[-1] == 0
    assert levels[: len(offered) - len(fitting)] == [None] * (len(offered) - len(fitting))
    assert ("host" in levels) <= on_gpu


def test_the_paper_s_largest_network_fits_the_common_gpus() -> None:
    usable = {"L4": 22.5e9, "L40S": 46e9, "A100-80": 83e9}
    found = {
        (name, precision): cost.cheapest_level(trial(precision=precision), memory)
        for name, memory in usable.items()
        for precision in ("float32", "bfloat16")
    }
    assert found["L4", "float32"] == "host" and found["A100-80", "float32"] == "none"
    assert all(LEVELS.index(found[name, "bfloat16"]) <= LEVELS.index(found[name, "float32"]) for name in usable)
