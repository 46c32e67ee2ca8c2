"""One step, an evaluation, samples and Jacobians: on the GPU as on the CPU.

What is compared with is the CPU in float32. A product of the GPU is away from it by the rounding of the precision: 24
bits of float32 (sums in another order), 11 bits of TF32's factors, 8 bits of bfloat16's, which add up over the layers.
"""

import copy
from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor

from benchmarks import models
from benchmarks.gpu.checks import ARCHITECTURES, COMPILE, DEVICE, ON_GPU, Checks, Found, at_most, images, trial
from gahb.denoising import noise, psnr
from gahb.denoising.sampling import sample
from gahb.models.architectures import UNet
from gahb.models.layers import Denoiser
from gahb.training import step
from gahb.training.cuda_graph import CudaGraph
from gahb.trial import PRECISIONS, Trial

CPU = torch.device("cpu")
TOLERANCES = {"float32": 1e-4, "tf32": 1e-2, "bfloat16": 5e-2}
"""Of ‖GPU - CPU‖ / ‖CPU‖ of the loss, and of all gradients in one vector."""

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
                what = f"{name}, {precision}, {way}: loss and gradients, relative error"
                yield what, partial(one_step, name, precision, way)
    for name in ARCHITECTURES:
        yield f"{name}: PSNR curve, largest difference", partial(evaluation, name)
        yield f"{name}: Jacobian, relative error", partial(of_jacobian, name)
    yield "samples, largest difference of a pixel", samples


BATCH = {"batch_size": 8}


def one_step(name: str, precision: str, way: str) -> Found:
    chosen = trial(architecture=name, precision=precision, compile=way != "eager", **BATCH)
    pairs = zip(loss_and_gradient(chosen, DEVICE, way), cpu_step(name), strict=True)
    return at_most(max(relative(here, there) for here, there in pairs), TOLERANCES[precision])


def relative(here: Tensor, there: Tensor) -> float:
    return float((here.cpu() - there).norm() / there.norm())


@cache
def cpu_step(name: str) -> tuple[Tensor, Tensor]:
    return loss_and_gradient(trial(architecture=name, **BATCH), CPU, "eager")


def loss_and_gradient(trial: Trial, device: torch.device, way: str) -> tuple[Tensor, Tensor]:
    """The loss of a first step on the CPU's batch, and its gradients in one vector."""
    step.make_deterministic()
    net, optimizer = step.start(trial, device)
    loss_of = step.loss_function(trial, device)
    batch = noise.noisy_batch(images(trial, CPU), trial.batch_size, noise.generator("parity"))
    noisy, target = (tensor.to(device) for tensor in batch)

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
    return loss, torch.cat(moments)


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
    y = shown[:1].float() / 255
    error = relative(jacobian.full(gpu, y.to(DEVICE)), jacobian.full(cpu, y))
    return at_most(error, TOLERANCES["float32"])


def samples() -> Found:
    """Of a network that was trained for seconds, so that its samples take many steps."""
    step.make_deterministic()
    gpu = models.trained(UNet(1, 32), steps=300) if ON_GPU else models.trained(UNet(1, 8), steps=150)
    here, there = (
        sample(denoiser, 16, 16, mean=0.5, device=device)
        for denoiser, device in ((gpu, DEVICE), (copy.deepcopy(gpu).cpu(), CPU))
    )
    both = here.converged & there.converged
    count, steps = int(both.sum()), int(there.steps[both].min())
    off = float((here.images[both] - there.images[both]).abs().max())
    met = off <= MOST_OFF and count >= FEWEST and steps >= FEWEST_STEPS
    asked = f"≤ {MOST_OFF}, {FEWEST} samples or more, {FEWEST_STEPS} steps or more"
    return Found(f"{off:.1g}, {count} samples, {steps} steps or more", asked, met)
