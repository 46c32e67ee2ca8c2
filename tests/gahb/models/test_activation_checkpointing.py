import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from gahb.denoising import noise
from gahb.models.activation_checkpointing import LEVELS, Level, activation_checkpointing, kept_on_host
from gahb.training import step
from gahb.trial import Trial

CPU = torch.device("cpu")
UNET = {"blocks": 2, "width": 8}
BF_CNN = {"architecture": "bf_cnn", "layers": 21, "width": 8}
TRANSFORMER = {"architecture": "transformer", "patch": 2, "depth": 4, "width": 16, "heads": 2}


def trial(**changes: object) -> Trial:
    common = {"dataset": "c_alpha", "resolution": 16, "n_train": 4, "n_test": 4, "batch_size": 8, "images": 64}
    return Trial.of({**common, **changes})


def batch(trial: Trial, step: int) -> tuple[Tensor, Tensor]:
    images = torch.randint(0, 256, (4, 1, 16, 16), dtype=torch.uint8, generator=noise.generator("images"))
    return noise.noisy_batch(images, trial.batch_size, noise.generator("batch", step))[:2]


def steps(trial: Trial, level: Level) -> list[Tensor]:
    """Loss, gradients, running standard deviations and weights after each of four steps."""
    net, optimizer = step.start(trial, CPU)
    activation_checkpointing(net, level)
    loss_of = step.loss_function(trial, CPU, level)
    seen = []
    for number in range(4):
        loss = step.training_step(loss_of, net, optimizer, *batch(trial, number), trial.precision)
        gradients = [parameter.grad for parameter in net.parameters() if parameter.grad is not None]
        seen += [tensor.clone() for tensor in (loss, *gradients, *net.state_dict().values())]
    return seen


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("network", [UNET, BF_CNN, TRANSFORMER], ids=["unet", "bf_cnn", "transformer"])
def test_no_level_changes_a_bit(network: dict, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gahb.models.activation_checkpointing.SMALL", 1)  # all goes to the host
    small = trial(precision=precision, **network)
    plain = steps(small, "none")
    for level in LEVELS[1:]:
        assert all(itertools.starmap(torch.equal, zip(plain, steps(small, level), strict=True))), level


@pytest.mark.slow
def test_compiled_activation_checkpointing_stays_close() -> None:
    small = trial(precision="bfloat16", compile=True, **UNET)
    plain = steps(small, "none")
    for level in LEVELS[1:]:
        for a, b in zip(plain, steps(small, level), strict=True):
            torch.testing.assert_close(a, b, atol=2e-2 * a.abs().max().item(), rtol=0)


@pytest.mark.parametrize(
    ("network", "ratio"), [(UNET, 4.5), (BF_CNN, 6), (TRANSFORMER, 12)], ids=["unet", "bf_cnn", "transformer"]
)
def test_less_is_kept_for_backward(network: dict, ratio: float) -> None:
    small = trial(**network)
    net, _ = step.start(small, CPU)
    weights = {parameter.data_ptr() for parameter in net.parameters()}

    def kept(level: Level) -> int:
        activation_checkpointing(net, level)
        storages = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        with saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = step.squared_error(net, *batch(small, 0), "float32")
        del loss
        return sum(size for pointer, size in storages.items() if pointer not in weights)

    assert kept("none") > ratio * kept("block")


def test_a_network_without_blocks_trains_the_same_at_every_level() -> None:
    def trained(level: Level) -> list[Tensor]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1))
        activation_checkpointing(net, level)
        optimizer = torch.optim.Adam(net.parameters())
        for number in range(4):
            step.training_step(step.squared_error, net, optimizer, *batch(trial(**UNET), number), "float32")
        return list(net.state_dict().values())

    assert all(map(torch.equal, trained("none"), trained("block")))


def test_what_is_kept_on_the_host_keeps_its_bits_and_its_layout() -> None:
    net = nn.Conv2d(4, 4, 3, padding=1)
    x = torch.randn(2, 4, 512, 512).to(memory_format=torch.channels_last)
    seen: list[Tensor] = []

    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x, x)
            return x.sum()

        @staticmethod
        def backward(ctx: Any, d: Tensor) -> Tensor:
            seen.extend(ctx.saved_tensors)
            return torch.ones_like(x)

    kept_on_host(lambda net, x: Twice.apply(net(x)))(net, x).backward()
    first, second = seen
    assert torch.equal(first, net(x)) and torch.equal(first, second)
    assert first.stride() == net(x).stride() and first.is_contiguous(memory_format=torch.channels_last)


def test_the_trained_network_is_differentiated_as_any_other() -> None:
    net, _ = step.start(trial(**UNET), CPU)
    activation_checkpointing(net, "block")
    y, v = torch.randn(2, 1, 1, 16, 16)
    value, derivative = torch.func.jvp(net.eval(), (y,), (v,))
    torch.testing.assert_close(torch.func.jvp(net, (y,), (y,))[1], value)  # J(y) y = net(y)
    assert derivative.shape == v.shape


def test_weights_are_stored_under_the_same_names_at_every_level() -> None:
    net, _ = step.start(trial(**UNET), CPU)
    before = list(net.state_dict())
    activation_checkpointing(net, "block")
    assert list(net.state_dict()) == before and not any("next_sd" in name for name in before)
