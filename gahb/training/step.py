"""One step of training and the state between two: network, optimizer, loss and learning rate.

loss = ‖net(x + σz) - σz‖² / batch size
"""

import contextlib
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from gahb.denoising import noise
from gahb.models.activation_checkpointing import Level, kept_on_host
from gahb.models.layers import initialise, update_running_sd
from gahb.training.compilation import compiled
from gahb.training.cuda_graph import CudaGraph
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
    optimizer = torch.optim.Adam(net.parameters(), lr=trial.learning_rate, fused=True)
    if device.type == "cuda":
        keep_rate_on(device, optimizer)
    for parameter in net.parameters():
        _set_moments(optimizer, parameter, 0, [torch.zeros_like(parameter) for _ in MOMENTS])
    return net, optimizer


def stepper(
    trial: Trial, net: nn.Module, optimizer: torch.optim.Adam, images: Tensor, level: Level = "none"
) -> Callable[[int], Tensor]:
    """What does a whole step of the training, given its number, counted from 0: learning rate, noise, forward,
    backward, Adam, running standard deviations. It returns the loss, (), on the device, to be read before the next.

    A step depends on its number and the state between steps alone.

    Args:
        trial: what is trained.
        net: as `start` made it, at a level of activation checkpointing.
        optimizer: as `start` made it; `restore` comes before.
        images: (n_train, C, H, W) as stored, on the device.
        level: that of `net`.

    Raises:
        UserError: the trial wants to be compiled and there is no C++ compiler.
    """
    loss_of = loss_function(trial, images.device, level)
    draws = torch.Generator(images.device)

    def body() -> Tensor:
        noisy, target = noise.noisy_batch(images, trial.batch_size, draws)
        return training_step(loss_of, net, optimizer, noisy, target, trial.precision)

    run = CudaGraph(body, net, optimizer, draws) if graphed(trial, images.device, level) else body
    tf32 = trial.precision == "tf32" and images.device.type == "cuda"

    def step(number: int) -> Tensor:
        set_learning_rate(optimizer, learning_rate(trial, number))
        draws.manual_seed(noise.seed("batch", trial.seed, trial.subset, number))
        with tensor_float_32() if tf32 else contextlib.nullcontext():
            return run()

    return step


def graphed(trial: Trial, device: torch.device, level: Level) -> bool:
    """Whether all steps are launches of one CUDA graph, recorded at the first: compiled on a GPU, unless saved tensors
    go to pinned memory of the host, which only the newest versions of torch can give to a graph."""
    return trial.compile and device.type == "cuda" and level != "host"


def training_step(
    loss_of: Loss, net: nn.Module, optimizer: torch.optim.Optimizer, noisy: Tensor, target: Tensor, precision: str
) -> Tensor:
    """One step of Adam on a batch (B, C, H, W); returns the loss, (), still on the device."""
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
    loss_of: Loss = squared_error
    if trial.compile:
        shapes = trial.architecture, trial.dataset.resolution, trial.batch_size, trial.precision
        loss_of = compiled(squared_error, device, *shapes, level)
    return kept_on_host(loss_of) if level == "host" else loss_of


def learning_rate(trial: Trial, step: int) -> float:
    """The rate of a step (counted from 0). "halving": halved after every tenth of the steps; "cosine": from the full
    rate to 1 % of it along half a cosine."""
    done = step / trial.steps
    if trial.schedule == "halving":
        return trial.learning_rate * 0.5 ** math.floor(10 * done)
    return trial.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)


def keep_rate_on(device: torch.device, optimizer: torch.optim.Optimizer) -> None:
    """Make the learning rate a number of the device, in float32, from where CUDA graphs read it."""
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(group["lr"], device=device)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate, in place where it is a tensor."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
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
        moments = [torch.empty_like(parameter).copy_(tensors[f"{moment}:{name}"]) for moment in MOMENTS]
        _set_moments(optimizer, parameter, step, moments)


def _set_moments(optimizer: torch.optim.Optimizer, parameter: Tensor, step: int, moments: list[Tensor]) -> None:
    counted = torch.tensor(float(step), device=parameter.device)
    optimizer.state[parameter] = {"step": counted, **dict(zip(MOMENTS, moments, strict=True))}


def make_deterministic() -> None:
    """Let cuDNN choose only algorithms that give the same bits every time, and keep float32 products in float32."""
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    _allow_tensor_float_32(False)


@contextlib.contextmanager
def tensor_float_32() -> Iterator[None]:
    """Within the block a GPU may round the factors of float32 products to TF32, a mantissa of 10 bits."""
    _allow_tensor_float_32(True)
    try:
        yield
    finally:
        _allow_tensor_float_32(False)


def _allow_tensor_float_32(allowed: bool) -> None:
    torch.backends.cudnn.allow_tf32 = allowed
    torch.backends.cuda.matmul.allow_tf32 = allowed
