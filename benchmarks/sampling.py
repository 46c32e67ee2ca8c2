"""Sampling many images together against one at a time. Wall-clock time on all cores or a GPU.

Both ways keep freed memory, as analyses do. The baseline has what torch does by default, TF32 on a GPU.
"""

import torch
from torch import Tensor

from benchmarks.harness import Row, alternate, main, torchs_defaults
from benchmarks.models import DEVICE, Flat, convolution_rate, random
from gahb import hardware
from gahb.denoising.sampler import Sampler
from gahb.denoising.sampling import CHUNK, sample
from gahb.models.architectures import Architecture, UNet
from gahb.training import cost
from gahb.training.step import make_deterministic

SIDE = 20
ALONE = 4
"""Samples that the baseline draws in a round, of the 64."""

ROUNDS = 9


@torch.no_grad()
def one_by_one(denoiser: Flat, count: int) -> Tensor:
    """Algorithm 1 as it is written, an image at a time."""
    torchs_defaults()
    constants = Sampler()
    images = []
    for _ in range(count):
        x = 0.5 + constants.sigma_start * torch.randn(1, 1, SIDE, SIDE, device=DEVICE)
        step, sigma = 0, constants.sigma_start
        while sigma > constants.sigma_end:
            step += 1
            h = constants.step_size(step)
            denoised = denoiser(x)
            residual = denoised - x
            sigma = residual.square().mean().sqrt().item()
            gamma = ((1 - constants.beta * h) ** 2 - (1 - h) ** 2) ** 0.5 * sigma
            x = x + h * residual + gamma * torch.randn(1, 1, SIDE, SIDE, device=DEVICE)
        images.append(denoised)
    return torch.cat(images)


def rows(architecture: Architecture | None = None, rounds: int = ROUNDS) -> list[Row]:
    """The row for a network, UNet 20×20 unless another is given."""
    architecture = architecture or UNet(1)
    hardware.keep_freed_memory()
    denoiser = Flat(random(architecture).net)

    def together() -> Tensor:
        make_deterministic()
        return sample(denoiser, CHUNK, (1, SIDE, SIDE), mean=0.5, device=DEVICE).steps

    steps = int(together().sum())
    times = alternate({"together": together, "alone": lambda: one_by_one(denoiser, ALONE)}, rounds=rounds)
    seconds, alone = times["together"].wall, times["alone"].wall
    ratio = (alone / ALONE) / (seconds / CHUNK)
    target = 100 if DEVICE.type == "cuda" else 3
    rate = cost.forward_flops(architecture, SIDE) * steps / seconds / 1e9
    limit = convolution_rate(torch.float32) / 1e9
    return [
        Row(
            f"{CHUNK} samples, UNet {SIDE}×{SIDE}, float32",
            f"one image at a time, eager{' TF32' if DEVICE.type == 'cuda' else ''} ({ALONE} of {CHUNK})",
            ratio,
            f"≥ {target}×",
            ratio >= target,
            f"{CHUNK / seconds:.1f} samples/s of {steps / CHUNK:.0f} steps, {rate:.0f} GFLOP/s, "
            f"{rate / limit:.0%} of a convolution's",
        )
    ]


if __name__ == "__main__":
    main(rows, __doc__)
