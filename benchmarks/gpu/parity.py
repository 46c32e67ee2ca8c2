"""One step, an evaluation, samples and Jacobians: on the GPU as on the CPU.

What is compared with is the CPU in float32. Products are rounded to 24 bits in float32, 11 in TF32 and 8 in bfloat16. A
ReLU whose input is nearer to 0 than the rounding may switch, which moves a gradient by about the square root of the
rounding: seldom in float32, where the median of several batches does not see it, and everywhere in the others.
"""

import copy
import statistics
from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor

from benchmarks import models
from benchmarks.gpu.checks import ARCHITECTURES, COMPILE, DEVICE, ON_GPU, Checks, Found, at_most, images, trial
from gahb.data.intensity import unit
from gahb.denoising import noise, psnr
from gahb.denoising.sampling import sample
from gahb.models.architectures import UNet
from gahb.models.layers import Denoiser
from gahb.training import step
from gahb.training.cuda_graph import CudaGraph
from gahb.trial import PRECISIONS, Trial

CPU = torch.device("cpu")
LOSS = {"float32": 1e-5, "tf32": 5e-4, "bfloat16": 2e-3}
GRADIENT = {
    "float32": {"unet": 1e-4, "bf_cnn": 1e-4, "transformer": 1e-4},
    "tf32": {"unet": 0.03, "bf_cnn": 0.15, "transformer": 0.01},
    "bfloat16": {"unet": 0.08, "bf_cnn": 0.5, "transformer": 0.03},
}
"""Most of ‖GPU - CPU‖ / ‖CPU‖, the median over batches. On a CPU the gradients in bfloat16, or with factors rounded to
TF32, are away from those in double precision by a sixth to a half of it, and those in float32 by 2e-6 at most."""

JACOBIAN = 1e-4
"""The same of Jacobians."""

BATCHES = 5
"""Batches of two images, or Jacobians, whose median counts."""

MOMENT = 0.1
"""What Adam's first moment is after a step of the gradient, 1 - β₁."""

MOST_OFF = 0.01
"""Of a pixel of a sample; rounding grows over the steps."""

FEWEST, FEWEST_STEPS = 8, 20
"""Samples of 16 that must converge, and the steps that they must take, for the comparison to see the loop."""


def checks() -> Checks:
    ways = ["eager", "compiled", "graph"] if COMPILE[-1] else ["eager"]
    for name in ARCHITECTURES:
        for precision in PRECISIONS:
            for way in ways:
                what = f"{name}, {precision}, {way}: relative error of loss and gradients"
                yield what, partial(one_step, name, precision, way)
    for name in ARCHITECTURES:
        yield f"{name}: PSNR curve, largest difference", partial(evaluation, name)
        yield f"{name}: Jacobians, relative error, median", partial(of_jacobian, name)
    yield "samples, largest difference of a pixel", samples


def one_step(name: str, precision: str, way: str) -> Found:
    chosen = trial(architecture=name, precision=precision, compile=way != "eager", batch_size=2)
    losses, gradients = [], []
    for batch in range(BATCHES):
        here, there = loss_and_gradient(chosen, DEVICE, way, batch), cpu_step(name, batch)
        losses.append(relative(here[0], there[0]))
        gradients.append(relative(here[1], there[1]))
    loss, gradient = statistics.median(losses), statistics.median(gradients)
    most = LOSS[precision], GRADIENT[precision][name]
    met = loss <= most[0] and gradient <= most[1]
    return Found(f"{loss:.1e}, {gradient:.1e}", f"≤ {most[0]:g}, {most[1]:g}", met)


def relative(here: Tensor, there: Tensor) -> float:
    return float((here - there).norm() / there.norm())


@cache
def cpu_step(name: str, batch: int) -> tuple[Tensor, Tensor]:
    return loss_and_gradient(trial(architecture=name, batch_size=2), CPU, "eager", batch)


def loss_and_gradient(trial: Trial, device: torch.device, way: str, batch: int) -> tuple[Tensor, Tensor]:
    """The loss of a first step on a batch of the CPU, and its gradients in one vector."""
    step.make_deterministic()
    net, optimizer = step.start(trial, device)
    loss_of = step.loss_function(trial, device)
    of_cpu = noise.noisy_batch(images(trial, CPU), trial.batch_size, noise.generator("parity", batch))
    noisy, target, _ = (tensor.to(device) for tensor in of_cpu)

    def body() -> Tensor:
        return step.training_step(loss_of, net, optimizer, noisy, target, trial.precision)

    run: Callable[[], Tensor] = body
    if way == "graph":
        run = CudaGraph(body, net, optimizer, torch.Generator(device))
    if trial.precision == "tf32" and device.type == "cuda":
        with step.tensor_float_32():
            loss = run()
    else:
        loss = run()
    moments = [optimizer.state[parameter]["exp_avg"].flatten() / MOMENT for parameter in net.parameters()]
    return loss.cpu(), torch.cat(moments).cpu()


def denoisers(name: str) -> tuple[Denoiser, Denoiser, Tensor]:
    """A network with random weights on the GPU and on the CPU, and images (16, 1, H, W) uint8."""
    step.make_deterministic()
    chosen = trial(architecture=name)
    gpu = models.random(chosen.architecture)
    return gpu, copy.deepcopy(gpu).cpu(), images(chosen, CPU)[:16]


def evaluation(name: str) -> Found:
    gpu, cpu, shown = denoisers(name)
    here, there = psnr.mean_psnr(gpu, shown.to(DEVICE), 16), psnr.mean_psnr(cpu, shown, 16)
    return at_most(max(abs(a - b) for a, b in zip(here, there, strict=True)), 0.01, " dB")


def of_jacobian(name: str) -> Found:
    from gahb.denoising import jacobian  # SciPy's, which the rest does without

    gpu, cpu, shown = denoisers(name)
    points = unit(shown[:BATCHES]).split(1)
    errors = [relative(jacobian.full(gpu, y.to(DEVICE)).cpu(), jacobian.full(cpu, y)) for y in points]
    return at_most(statistics.median(errors), JACOBIAN)


def samples() -> Found:
    """Of a network that was trained for seconds, so that its samples take many steps."""
    step.make_deterministic()
    gpu = models.trained(UNet(1, 32), steps=300) if ON_GPU else models.trained(UNet(1, 8), steps=150)
    here, there = (
        sample(denoiser, 16, (1, 16, 16), mean=0.5, device=device)
        for denoiser, device in ((gpu, DEVICE), (copy.deepcopy(gpu).cpu(), CPU))
    )
    both = here.converged & there.converged
    count, steps = int(both.sum()), int(there.steps[both].min())
    off = float((here.images[both] - there.images[both]).abs().max())
    met = off <= MOST_OFF and count >= FEWEST and steps >= FEWEST_STEPS
    asked = f"≤ {MOST_OFF}, {FEWEST} samples or more, {FEWEST_STEPS} steps or more"
    return Found(f"{off:.1g}, {count} samples, {steps} steps or more", asked, met)
