"""One step of training and the state between two: network, optimizer, loss and learning rate.

loss = Σ w(σ) ‖net(x + σz) - σz‖² / batch size,    w = 1 unless weighted
"""

import contextlib
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from gahb.denoising import noise
from gahb.models.activation_checkpointing import Level, kept_on_host
from gahb.models.layers import initialise, update_running_sd
from gahb.training.averaging import WeightAverage
from gahb.training.compilation import compiled
from gahb.training.cuda_graph import CudaGraph
from gahb.training.muon import MOMENTUM_BUFFER, Muon
from gahb.trial import Trial

Loss = Callable[..., Tensor]
"""The loss of (net, noisy, target, precision, weight); see `squared_error`."""

MOMENTS = ("exp_avg", "exp_avg_sq")
"""Adam's two moments, under their names in the optimizer and before those of the parameters in a checkpoint."""

AVERAGE = "average"
"""What stands before the names of averaged weights in a checkpoint."""

LEAST_SIGMA = 0.01
"""The σ below which a weight of 1/σ rises no more."""


def start(trial: Trial, device: torch.device) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The untrained network in training mode and its optimizer. A and B start from different weights."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(noise.generator("weights", trial.seed, trial.subset).get_state())
        net = trial.architecture.build().apply(initialise)
    net.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = _optimizer(trial, net)
    if device.type == "cuda":
        keep_rate_on(device, optimizer)
    for parameter in net.parameters():
        moments = {name: torch.zeros_like(parameter) for name in _moment_names(optimizer, parameter)}
        _set_moments(optimizer, parameter, 0, moments)
    return net, optimizer


def _optimizer(trial: Trial, net: nn.Module) -> torch.optim.Optimizer:
    betas = (0.9, trial.beta2)
    if trial.optimizer == "muon":
        return Muon(net, trial.learning_rate, betas, trial.dataset.image_channels)
    return torch.optim.Adam(net.parameters(), lr=trial.learning_rate, betas=betas, fused=True)


def start_average(trial: Trial, net: nn.Module) -> WeightAverage | None:
    """The average of the weights that `start` made, if the trial wants one."""
    return WeightAverage(net, trial.ema) if trial.ema else None


def stepper(
    trial: Trial,
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    level: Level = "none",
    average: WeightAverage | None = None,
) -> Callable[[int], Tensor]:
    """What does a whole step of the training, given its number, counted from 0: learning rate, noise, forward,
    backward, optimizer, running standard deviations, average. It returns the loss, (), on the device, to be read before
    the next.

    A step depends on its number and the state between steps alone.

    Args:
        trial: what is trained.
        net: as `start` made it, at a level of activation checkpointing.
        optimizer: as `start` made it; `restore` comes before.
        images: (n_train, C, H, W) as stored, on the device.
        level: that of `net`.
        average: that of `start_average`.

    Raises:
        UserError: the trial wants to be compiled and there is no C++ compiler.
    """
    loss_of = loss_function(trial, images.device, level)
    draws = torch.Generator(images.device)

    def body() -> Tensor:
        noisy, target, sigma = noise.noisy_batch(images, trial.batch_size, draws, trial.noise_law)
        weight = None if trial.weighting == "uniform" else 1 / sigma.clamp_min(LEAST_SIGMA)
        loss = training_step(loss_of, net, optimizer, noisy, target, trial.precision, weight)
        if average:
            average.update()
        return loss

    averages = average.values.values() if average else ()
    run = CudaGraph(body, net, optimizer, draws, averages) if graphed(trial, images.device, level) else body
    tf32 = trial.precision == "tf32" and images.device.type == "cuda"

    def step(number: int) -> Tensor:
        set_learning_rate(optimizer, learning_rate(trial, number))
        draws.manual_seed(noise.seed("batch", trial.seed, trial.subset, number))
        if average:
            average.set_share(number)
        with tensor_float_32() if tf32 else contextlib.nullcontext():
            return run()

    return step


def graphed(trial: Trial, device: torch.device, level: Level) -> bool:
    """Whether all steps are launches of one CUDA graph, recorded at the first: compiled on a GPU, unless saved tensors
    go to pinned memory of the host, which only the newest versions of torch can give to a graph."""
    return trial.compile and device.type == "cuda" and level != "host"


def training_step(
    loss_of: Loss,
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    noisy: Tensor,
    target: Tensor,
    precision: str,
    weight: Tensor | None = None,
) -> Tensor:
    """One step of the optimizer on a batch (B, C, H, W); returns the loss, (), still on the device."""
    loss = loss_of(net, noisy, target, precision, weight)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    update_running_sd(net)
    return loss.detach()


def squared_error(
    net: nn.Module, noisy: Tensor, target: Tensor, precision: str, weight: Tensor | None = None
) -> Tensor:
    """‖net(noisy) - target‖² / batch size, (), with the network's products in `precision`, and the square of each image
    times its weight (B, 1, 1, 1)."""
    with torch.autocast(noisy.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        estimate = net(noisy)
    squares = (estimate.float() - target).square()
    return (squares if weight is None else weight * squares).sum() / len(noisy)


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
    rate to 1 % of it along half a cosine; "constant". At first it rises linearly, if the trial warms up."""
    done = step / trial.steps
    rate = trial.learning_rate
    if (seen := (step + 1) * trial.batch_size) < trial.warmup:
        rate *= seen / trial.warmup
    if trial.schedule == "constant":
        return rate
    if trial.schedule == "halving":
        return rate * 0.5 ** math.floor(10 * done)
    return rate * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)


def keep_rate_on(device: torch.device, optimizer: torch.optim.Optimizer) -> None:
    """Make the learning rate a number of the device, in float32, from where CUDA graphs read it."""
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(group["lr"], device=device)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate, in place where it is a tensor, and a group's share of it where it has one."""
    for group in optimizer.param_groups:
        of_group = rate * group.get("share", 1)
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(of_group)
        else:
            group["lr"] = of_group


def state(net: nn.Module, optimizer: torch.optim.Optimizer, average: WeightAverage | None = None) -> dict[str, Tensor]:
    """Weights, running standard deviations, the optimizer's moments and averages of weights, by name. Adam's step count
    is the step."""
    tensors = dict(net.state_dict())
    for name, parameter in net.named_parameters():
        for moment in _moment_names(optimizer, parameter):
            tensors[f"{moment}:{name}"] = optimizer.state[parameter][moment]
    averages = average.values if average else {}
    return {**tensors, **{f"{AVERAGE}:{name}": value for name, value in averages.items()}}


def restore(
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    tensors: dict[str, Tensor],
    step: int,
    average: WeightAverage | None = None,
) -> None:
    """Put a network, its optimizer and its average into the state that `state` gave after `step` steps."""
    net.load_state_dict({name: tensor for name, tensor in tensors.items() if ":" not in name})
    for name, parameter in net.named_parameters():
        names = _moment_names(optimizer, parameter)
        moments = {moment: torch.empty_like(parameter).copy_(tensors[f"{moment}:{name}"]) for moment in names}
        _set_moments(optimizer, parameter, step, moments)
    if average:
        for name, value in average.values.items():
            value.copy_(tensors[f"{AVERAGE}:{name}"])


def _moment_names(optimizer: torch.optim.Optimizer, parameter: Tensor) -> tuple[str, ...]:
    orthogonal = isinstance(optimizer, Muon) and optimizer.is_orthogonal(parameter)
    return (MOMENTUM_BUFFER,) if orthogonal else MOMENTS


def _set_moments(optimizer: torch.optim.Optimizer, parameter: Tensor, step: int, moments: dict[str, Tensor]) -> None:
    optimizer.state[parameter] = {"step": torch.tensor(float(step), device=parameter.device), **moments}


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
