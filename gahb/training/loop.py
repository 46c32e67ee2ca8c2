"""Training a blind denoiser (appendix A): Adam on the squared error of the estimated noise.

    loss = ‖net(x + σz) - σz‖² / batch size,    x from the training images, σ = u², u ~ U[0, 1], z ~ N(0, Id).

The state after step t is a function of the trial and t alone: every draw of step t comes from a generator seeded
by (seed, subset, t). So a training that starts from the checkpoint at t ends with the same bits as one that was
never interrupted, on the same machine. At a constant rate it does not depend on the length either: trainings that
differ in nothing else have one course, and a longer one may start from where a shorter one ended.
"""

import functools
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

from gahb import hardware
from gahb.denoising import psnr
from gahb.models.activation_checkpointing import Level, activation_checkpointing
from gahb.models.layers import Denoiser
from gahb.training import cost, out_of_memory
from gahb.training.checkpoints import Check, Checkpoints, Damaged, Saved
from gahb.training.step import learning_rate, make_deterministic, restore, start, start_average, state, stepper
from gahb.trial import Trial

log = logging.getLogger(__name__)

MOST_BESIDE_TENSORS = 16 << 20
"""Bytes of a checkpoint's names and facts; an evaluation takes one or two thousand."""

MOST_ON_CHECKPOINTS = 0.03
"""Share of a training's time that may go into writing its checkpoints."""

SETTLED_DB, SETTLED_SHARE = 0.1, 0.25
"""A training has settled once nothing has changed by more than so many dB since such a share of its images."""


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
        """The evaluation as numbers: `images_seen`, `loss`, `learning_rate` and the curve's summary."""
        own = {"images_seen": self.images_seen, "loss": self.loss, "learning_rate": self.learning_rate}
        return {**own, **self.curve.summary()}

    @classmethod
    def of(cls, plain: dict[str, Any]) -> Self:
        """The inverse of dataclasses.asdict, for what a checkpoint holds."""
        curve = {name: tuple(values) for name, values in plain["curve"].items()}
        return cls(**{"time": time.time(), **plain, "curve": psnr.Curve(**curve)})


class Diverged(Exception):
    """The loss is no longer finite, or the train PSNR has fallen below 0 dB, where no image is as far from another. The
    message says when."""


class Halted(Exception):
    """Training was asked to end early, and has left a checkpoint."""


@dataclass(frozen=True)
class Control:
    """What may be asked of a training on its way, from another thread: write a checkpoint now; write one and end."""

    save: threading.Event = field(default_factory=threading.Event)
    halt: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Training:
    """What is trained, and on what.

    Args:
        trial: what to train.
        train_images: (n_train, C, H, W) as stored.
        test_images: (n_test, C, H, W) as stored.
        device: where to train; the images move there whole.
    """

    trial: Trial
    train_images: Tensor
    test_images: Tensor
    device: torch.device


@dataclass(frozen=True)
class Options:
    """What a training does on its way; none of it affects the result.

    Args:
        checkpoint_seconds: least time between two checkpoints, which is stretched where writing them would take more
            than MOST_ON_CHECKPOINTS of it; 0 means after every step.
        on_evaluation: called with all evaluations so far after each evaluation, and once at a resumption.
        on_step: called with the images seen after each step, which a GPU may have still before it.
        control: what another thread uses to ask for a checkpoint or an early end.
        course: the checkpoints of other trainings of the same course, from one of which it may start.
        say: takes a line when memory is scarce or ran out.
    """

    checkpoint_seconds: float = 60
    on_evaluation: Callable[[list[Evaluation]], None] = lambda history: None
    on_step: Callable[[int], None] = lambda images_seen: None
    control: Control = field(default_factory=Control)
    course: Sequence[Checkpoints] = ()
    say: Callable[[str], None] = log.warning


@dataclass(frozen=True)
class Trained:
    """What a training leaves: the denoiser in evaluation mode; all evaluations, the last at its end; the seconds that
    it took, with those of the training that it went on from and without those that a dead worker took after its last
    checkpoint, NaN if that knows none; and how many images that other training had seen."""

    denoiser: Denoiser
    history: list[Evaluation]
    seconds: float = math.nan
    images_reused: int = 0


def train(training: Training, checkpoints: Checkpoints, options: Options | None = None) -> Trained:
    """Train a trial to its end, from its newest checkpoint if there is one.

    The level of activation checkpointing is the first that fits by `cost.memory`: the same bits for less memory. Where
    memory runs out all the same, training goes on from the newest checkpoint at the next. Compiled, the order of some
    sums may be another, as on another machine.

    Raises:
        Diverged: a loss that is not finite, or a train PSNR that has been above 0 dB, and is below.
        Halted: `options.control` asked for it.
        OutOfMemory: it does not fit at any level.
    """
    chosen = options or Options()
    make_deterministic()
    trial, device = training.trial, training.device
    available, on_gpu = hardware.available(device), device.type == "cuda"
    need, levels = cost.memory(trial, on_gpu=on_gpu), cost.levels_to_try(trial, available, on_gpu=on_gpu)
    if levels[0] != "none":
        chosen.say(
            f"with activation checkpointing ({levels[0]}), as training takes about {need / 1e9:.2g} GB without it, and "
            f"{available / 1e9:.2g} GB are there"
        )
    run = functools.partial(_train, training, checkpoints, chosen)
    return out_of_memory.with_less_memory(run, levels, need, chosen.say)


def _train(training: Training, checkpoints: Checkpoints, options: Options, level: Level) -> Trained:
    started = time.monotonic()
    trial, device, control = training.trial, training.device, options.control
    train_images, test_images = training.train_images.to(device), training.test_images.to(device)
    net, optimizer = start(trial, device)
    activation_checkpointing(net, level)
    average = start_average(trial, net)
    step, images_reused, history = 0, 0, list[Evaluation]()
    evaluation_steps = set(cost.evaluation_steps(trial.steps, trial.evaluations))
    like = state(net, optimizer, average)
    size = sum(tensor.numel() * tensor.element_size() for tensor in like.values())
    check, most = functools.partial(_check_saved, trial, like), size + MOST_BESIDE_TENSORS
    if saved := checkpoints.latest(check, most) or _from_course(trial, checkpoints, options.course, check, most):
        step, tensors, facts = saved
        images_reused = facts.get("images_reused", 0)
        history = [Evaluation.of(plain) for plain in facts["history"]]
        started -= facts.get("seconds", math.nan)
        restore(net, optimizer, tensors, step, average)
    if history:
        options.on_evaluation(history)

    do_step = stepper(trial, net, optimizer, train_images, level, average)
    next_checkpoint = time.monotonic() + options.checkpoint_seconds
    ended = has_ended(trial, history)
    while not ended:
        loss, rate = do_step(step), learning_rate(trial, step)
        step += 1
        options.on_step(step * trial.batch_size)

        if evaluate := step in evaluation_steps:
            shown = average.net() if average else net.eval()
            curve = psnr.curve(Denoiser(shown), train_images, test_images)
            net.train()
            images_seen = step * trial.batch_size
            first_time = checkpoints.save_weights(images_seen, shown.state_dict())
            history.append(Evaluation(images_seen, loss.item(), rate, curve, first_time))
            if not all(map(math.isfinite, history[-1].metrics().values())):
                raise _diverged(loss, step, trial)
            psnrs = [evaluation.metrics()["train_psnr"] for evaluation in history]
            if psnrs[-1] < 0 < max(psnrs):
                fell = f"the train PSNR fell from {max(psnrs):.1f} to {psnrs[-1]:.1f} dB"
                raise Diverged(f"{fell} after {step} of {trial.steps} steps; lower learning_rate")

        ended = evaluate and has_ended(trial, history)
        halt = control.halt.is_set()
        if ended or time.monotonic() >= next_checkpoint or halt or control.save.is_set():
            control.save.clear()
            if not loss.isfinite():
                raise _diverged(loss, step, trial)
            write_started = time.monotonic()
            facts = {
                "history": [asdict(evaluation) for evaluation in history],
                "seconds": write_started - started,
                **({"images_reused": images_reused} if images_reused else {}),
            }
            written = checkpoints.save(step, state(net, optimizer, average), facts)
            write_ended = time.monotonic()
            write_seconds = write_ended - write_started if written else 0
            next_checkpoint = write_ended + checkpoint_pause(options.checkpoint_seconds, write_seconds)

        if evaluate:
            options.on_evaluation(history)
        if halt and not ended:
            raise Halted(f"halted after {step} of {trial.steps} steps")

    denoiser = Denoiser(average.net() if average else net).eval()
    return Trained(denoiser, history, time.monotonic() - started, images_reused)


def has_ended(trial: Trial, history: Sequence[Evaluation]) -> bool:
    """Whether the last of some evaluations ends the training: all images have been seen, or test PSNR and gap, in one
    that goes on until it has settled, have differed by at most SETTLED_DB since a share of SETTLED_SHARE of them."""
    if not history:
        return False
    seen = history[-1].images_seen
    if trial.until == "images" or seen >= trial.images:
        return seen >= trial.images
    since = [evaluation.metrics() for evaluation in history if evaluation.images_seen >= SETTLED_SHARE * seen]
    moved = [abs(row[key] - since[-1][key]) for row in since for key in ("test_psnr", "psnr_gap")]
    return history[0].images_seen <= SETTLED_SHARE * seen and max(moved) <= SETTLED_DB


def _from_course(
    trial: Trial, checkpoints: Checkpoints, course: Sequence[Checkpoints], check: Check, most: int
) -> Saved | None:
    """The furthest checkpoint of other trainings of the same course that is not beyond the trial's end, with the
    evaluations that the trial has too, whose weights join its own."""
    evaluated = {step * trial.batch_size for step in cost.evaluation_steps(trial.steps, trial.evaluations)}
    on_the_way = [(other.step, other) for other in course if 0 < other.step < trial.steps]
    for _, other in sorted(on_the_way, key=lambda pair: pair[0], reverse=True):
        if saved := other.latest(check, most):
            step, tensors, facts = saved
            history = [plain for plain in facts["history"] if plain["images_seen"] in evaluated]
            checkpoints.copy_weights(other, [plain["images_seen"] for plain in history])
            return step, tensors, {**facts, "history": history, "images_reused": step * trial.batch_size}
    return None


def _check_saved(
    trial: Trial, like: dict[str, Tensor], step: int, tensors: dict[str, Tensor], facts: dict[str, Any]
) -> None:
    """Raise an exception, of any kind, unless a training of the trial, whose state is of the names, shapes and types of
    `like`, can go on from a checkpoint."""
    if not 0 < step <= trial.steps:
        raise Damaged(f"the trial has {trial.steps} steps")
    if {name: (t.shape, t.dtype) for name, t in tensors.items()} != {n: (t.shape, t.dtype) for n, t in like.items()}:
        raise Damaged("its tensors are another network's")
    for evaluation in [Evaluation.of(plain) for plain in facts["history"]]:
        numbers = [evaluation.time, *evaluation.metrics().values()]
        if type(evaluation.images_seen) is not int or not all(map(math.isfinite, numbers)):
            raise Damaged("an evaluation in it is none")
    float(facts.get("seconds", math.nan))


def _diverged(loss: Tensor, step: int, trial: Trial) -> Diverged:
    return Diverged(f"the loss was {loss.item()} after {step} of {trial.steps} steps")


def checkpoint_pause(least: float, write_seconds: float) -> float:
    """Seconds between a checkpoint that took `write_seconds` and the next: `least`, or as many as keep the share of
    writing at MOST_ON_CHECKPOINTS."""
    return max(least, write_seconds * (1 / MOST_ON_CHECKPOINTS - 1)) if least else 0.0
