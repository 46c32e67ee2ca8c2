"""One step of training and the state between two: network, optimizer, loss and learning rate.

loss = ‖net(x + σz) - σz‖² / batch size
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gahb.denoising import noise
from gahb.models.activation_checkpointing import Level
from gahb.models.layers import initialise, update_running_sd
from gahb.training.compilation import compiled
from gahb.trial import Trial

Loss = Callable[[nn.Module, Tensor, Tensor, str], Tensor]
"""The loss of (net, noisy, target, precision); see `squared_error`."""

MOMENTS = ("exp_avg", "exp_avg_sq")
"""Adam's two moments, under their names in the optimizer and before those of the parameters in a checkpoint."""


def start(trial: Trial, device: torch.device) -> tuple[nn.Module, torch.optim.Adam]:
    """The untrained network in training mode and its optimizer. A and B start from different weights."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(noise.generator("weights", trial.seed, trial.subset).get_state())
        net = trial.architecture.build().apply(initialise)
    net.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    return net, torch.optim.Adam(net.parameters(), lr=trial.learning_rate, fused=True)


def training_step(
    loss_of: Loss, net: nn.Module, optimizer: torch.optim.Optimizer, noisy: Tensor, target: Tensor, precision: str
) -> Tensor:
    """One step of Adam on a batch (B, 1, H, W); returns the loss, (), still on the device."""
    loss = loss_of(net, noisy, target, precision)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    update_running_sd(net)
    return loss.detach()


def squared_error(net: nn.Module, noisy: Tensor, target: Tensor, precision: str) -> Tensor:
    """‖net(noisy) - target‖² / batch size, (), with the network's products in `precision`."""
    with torch.autocast(noisy.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        estimate = net(noisy)
    return (estimate.float() - target).square().sum() / len(noisy)


def loss_function(trial: Trial, device: torch.device, level: Level = "none") -> Loss:
    """`squared_error`, compiled if the trial wants it, for networks at that level of activation checkpointing. Raises
    UserError if it wants it and there is no C++ compiler."""
    if not trial.compile:
        return squared_error
    shapes = trial.architecture, trial.dataset.resolution, trial.batch_size, trial.precision
    return compiled(squared_error, device, *shapes, level)


def learning_rate(trial: Trial, step: int) -> float:
    """The rate of a step (counted from 0). "halving": halved after every tenth of the steps; "cosine": from the full
    rate to 1 % of it along half a cosine."""
    done = step / trial.steps
    if trial.schedule == "halving":
        return trial.learning_rate * 0.5 ** math.floor(10 * done)
    return trial.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def state(net: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Weights, running standard deviations and Adam's two moments, by name. Adam's step count is the step."""
    tensors = dict(net.state_dict())
    for name, parameter in net.named_parameters():
        for moment in MOMENTS:
            tensors[f"{moment}:{name}"] = optimizer.state[parameter][moment]
    return tensors


def restore(net: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], step: int) -> None:
    """Put a network and its optimizer into the state that `state` gave after `step` steps."""
    net.load_state_dict({name: tensor for name, tensor in tensors.items() if ":" not in name})
    for name, parameter in net.named_parameters():
        moments: dict[str, Any] = {
            moment: torch.empty_like(parameter).copy_(tensors[f"{moment}:{name}"]) for moment in MOMENTS
        }
        optimizer.state[parameter] = {"step": torch.tensor(float(step), device=parameter.device), **moments}


def make_deterministic() -> None:
    """Let cuDNN choose only algorithms that give the same bits every time, and keep float32 products in float32."""
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
