import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from gahb.models.architectures import ARCHITECTURES, BFCNN, Architecture, UNet
from gahb.training import cost

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
    assert out.requires_grad and predicted == pytest.approx(sum(kept.values()), rel=0.15)


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
