"""Training a blind denoiser (appendix A): Adam on the squared error of the estimated noise.

    loss = ‖net(x + σz) - σz‖² / batch size,    x from the training images, σ = u², u ~ U[0, 1], z ~ N(0, Id).

The state after step t is a function of the trial and t alone: every draw of step t comes from a generator seeded
by (seed, subset, t). So a training that starts from the checkpoint at t ends with the same bits as one that was
never interrupted, on the same machine.
"""

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, nn

from gahb.denoising import noise, psnr
from gahb.models.activation_checkpointing import recomputation
from gahb.models.layers import Denoiser, initialise
from gahb.training import cost, out_of_memory
from gahb.training.checkpoints import Checkpoints
from gahb.training.compilation import compiled
from gahb.trial import Trial

log = logging.getLogger(__name__)

MOST_ON_CHECKPOINTS = 0.03
"""Share of a training's time that may go into writing its checkpoints."""

Loss = Callable[[nn.Module, Tensor, Tensor, str], Tensor]


@dataclass(frozen=True)
class Evaluation:
    """What is measured on the way: the PSNR curve after `images_seen` images, with the last step's loss and learning
    rate; `time` is when it was first done, in seconds since 1970."""

    images_seen: int
    loss: float
    learning_rate: float
    curve: psnr.Curve
    time: float = field(compare=False)

    def metrics(self) -> dict[str, float]:
        """The evaluation as numbers: `images_seen`, `loss`, `learning_rate`, `train_psnr`, `test_psnr`, `psnr_gap`."""
        own = {"images_seen": self.images_seen, "loss": self.loss, "learning_rate": self.learning_rate}
        return {**own, **self.curve.summary()}

    @classmethod
    def of(cls, plain: dict[str, Any]) -> Self:
        """The inverse of dataclasses.asdict, for what a checkpoint holds."""
        curve = {name: tuple(values) for name, values in plain["curve"].items()}
        return cls(**{"time": time.time(), **plain, "curve": psnr.Curve(**curve)})


class Diverged(Exception):
    """The loss is no longer finite. The message says when."""


class Halted(Exception):
    """Training was asked to end early, and has left a checkpoint."""


@dataclass(frozen=True)
class Control:
    """What may be asked of a training on its way, from another thread: write a checkpoint now; write one and end."""

    save: threading.Event = field(default_factory=threading.Event)
    halt: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Trained:
    """What a training leaves: the denoiser in evaluation mode; all evaluations, the last at its end; and the seconds
    that it took, without those that a dead worker took after its last checkpoint, NaN if that knows none."""

    denoiser: Denoiser
    history: list[Evaluation]
    seconds: float = math.nan


def train(
    trial: Trial,
    train_images: Tensor,
    test_images: Tensor,
    *,
    device: torch.device,
    checkpoints: Checkpoints,
    checkpoint_seconds: float = 60,
    on_evaluation: Callable[[list[Evaluation]], None] = lambda history: None,
    control: Control | None = None,
    say: Callable[[str], None] = log.warning,
) -> Trained:
    """Train a trial to its end, from its newest checkpoint if there is one.

    Where memory runs out, training goes on from the newest checkpoint with activations that are computed again in
    backward: the same bits for less memory. Compiled, the order of some sums may be another, as on another machine.

    Args:
        trial: what to train.
        train_images: (n_train, 1, H, W) uint8.
        test_images: (n_test, 1, H, W) uint8.
        device: where to train; the images move there whole.
        checkpoints: where the state is kept.
        checkpoint_seconds: least time between two checkpoints, which is stretched where writing them would take more
            than MOST_ON_CHECKPOINTS of it; 0 means after every step. It does not affect the result.
        on_evaluation: called with all evaluations so far after each evaluation, and once at a resumption.
        control: what another thread uses to ask for a checkpoint or an early end.
        say: takes a line when memory ran out.

    Raises:
        Diverged: a loss that is not finite.
        Halted: `control` asked for it.
        OutOfMemory: it does not fit even so.
    """
    asked = control or Control()
    make_deterministic()

    def run(recompute: bool) -> Trained:
        return _train(
            trial, train_images, test_images, device, checkpoints, checkpoint_seconds, on_evaluation, asked, recompute
        )

    return out_of_memory.with_less_memory(run, cost.memory(trial), say)


def _train(
    trial: Trial,
    train_images: Tensor,
    test_images: Tensor,
    device: torch.device,
    checkpoints: Checkpoints,
    checkpoint_seconds: float,
    on_evaluation: Callable[[list[Evaluation]], None],
    control: Control,
    recompute: bool,
) -> Trained:
    begun = time.monotonic()
    train_images, test_images = train_images.to(device), test_images.to(device)
    net, optimizer = start(trial, device)
    step, history = 0, list[Evaluation]()
    if saved := checkpoints.latest():
        step, tensors, facts = saved
        history = [Evaluation.of(plain) for plain in facts["history"]]
        begun -= facts.get("seconds", math.nan)
        restore(net, optimizer, tensors, step)
    if history:
        on_evaluation(history)

    loss_of = compiled_loss(trial, device, recompute) if trial.compile else squared_error
    evaluations = set(evaluation_steps(trial.steps))
    due_at = time.monotonic() + checkpoint_seconds
    while step < trial.steps:
        set_learning_rate(optimizer, rate := learning_rate(trial, step))
        draws = noise.generator("batch", trial.seed, trial.subset, step, device=device)
        noisy, target = noise.noisy_batch(train_images, trial.batch_size, draws)
        loss = training_step(loss_of, net, optimizer, noisy, target, trial.precision, recompute)
        step += 1
        due = step in evaluations
        if due:
            net.eval()
            curve = psnr.curve(Denoiser(net), train_images, test_images)
            net.train()
            seen = step * trial.batch_size
            history.append(Evaluation(seen, loss.item(), rate, curve, checkpoints.save_weights(seen, net.state_dict())))
        if due and not all(map(math.isfinite, history[-1].metrics().values())):
            raise Diverged(f"the loss was {loss.item()} after {step} of {trial.steps} steps")
        halting = control.halt.is_set()
        if step == trial.steps or time.monotonic() >= due_at or halting or control.save.is_set():
            control.save.clear()
            if not loss.isfinite():
                raise Diverged(f"the loss was {loss.item()} after {step} of {trial.steps} steps")
            began = time.monotonic()
            facts = {"history": [asdict(evaluated) for evaluated in history], "seconds": began - begun}
            written = checkpoints.save(step, state(net, optimizer), facts)
            ended = time.monotonic()
            due_at = ended + checkpoint_pause(checkpoint_seconds, ended - began if written else 0)
        if due:
            on_evaluation(history)
        if halting and step < trial.steps:
            raise Halted(f"halted after {step} of {trial.steps} steps")

    return Trained(Denoiser(net).eval(), history, time.monotonic() - begun)


def start(trial: Trial, device: torch.device) -> tuple[nn.Module, torch.optim.Adam]:
    """The untrained network in training mode and its optimizer. A and B start from different weights."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(noise.generator("weights", trial.seed, trial.subset).get_state())
        net = trial.architecture.build().apply(initialise)
    net.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    return net, torch.optim.Adam(net.parameters(), lr=trial.learning_rate, fused=True)


def training_step(
    loss_of: Loss,
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    noisy: Tensor,
    target: Tensor,
    precision: str,
    recompute: bool = False,
) -> Tensor:
    """One step of Adam; returns the loss, (), still on the device. Backward may compute activations again."""
    with recomputation(recompute):
        loss = loss_of(net, noisy, target, precision)
    optimizer.zero_grad()
    followed = [buffer.clone() for buffer in net.buffers() if recompute]
    loss.backward()
    for buffer, value in zip(net.buffers(), followed, strict=False):
        buffer.copy_(value)  # a forward pass within backward has moved it again
    optimizer.step()
    return loss.detach()


def squared_error(net: nn.Module, noisy: Tensor, target: Tensor, precision: str) -> Tensor:
    """‖net(noisy) - target‖² / batch size, (), with the network's products in `precision`."""
    with torch.autocast(noisy.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        estimate = net(noisy)
    return (estimate.float() - target).square().sum() / len(noisy)


def compiled_loss(trial: Trial, device: torch.device, recompute: bool = False) -> Loss:
    """`squared_error` compiled; raises UserError if there is no C++ compiler."""
    shapes = trial.architecture, trial.dataset.resolution, trial.batch_size, trial.precision
    return compiled(squared_error, device, *shapes, recompute)


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


def evaluation_steps(steps: int) -> list[int]:
    """Steps after which PSNR is measured: powers of two from 16 on, and the last."""
    return [2**k for k in range(4, steps.bit_length()) if 2**k < steps] + [steps]


def checkpoint_pause(least: float, writing: float) -> float:
    """Seconds between a checkpoint that took `writing` seconds and the next: `least`, or as many as keep the share of
    writing at MOST_ON_CHECKPOINTS."""
    return max(least, writing * (1 / MOST_ON_CHECKPOINTS - 1)) if least else 0.0


def state(net: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Weights, running standard deviations and Adam's two moments, by name. Adam's step count is the step."""
    tensors = dict(net.state_dict())
    for name, parameter in net.named_parameters():
        for moment in ("exp_avg", "exp_avg_sq"):
            tensors[f"{moment}:{name}"] = optimizer.state[parameter][moment]
    return tensors


def restore(net: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], step: int) -> None:
    """Put a network and its optimizer into the state that `state` gave after `step` steps."""
    net.load_state_dict({name: tensor for name, tensor in tensors.items() if ":" not in name})
    for name, parameter in net.named_parameters():
        moments: dict[str, Any] = {
            moment: torch.empty_like(parameter).copy_(tensors[f"{moment}:{name}"])
            for moment in ("exp_avg", "exp_avg_sq")
        }
        optimizer.state[parameter] = {"step": torch.tensor(float(step), device=parameter.device), **moments}


def make_deterministic() -> None:
    """Let cuDNN choose only algorithms that give the same bits every time, and keep float32 products in float32."""
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
