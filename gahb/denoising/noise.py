"""Noise, as a function of its key and of nothing else.

y = x + σ z with z ~ N(0, Id). Every draw comes from a generator seeded by what it is for, such as
("batch", seed, subset, step), so training resumes exactly at any step and two models can share one noise.
"""

import hashlib
import math

import torch
from torch import Tensor

from gahb.data.intensity import unit
from gahb.denoising.levels import SIGMAS

LOGNORMAL = (-1.9, 1.2)
"""Mean and standard deviation of ln σ."""


def seed(*key: str | int) -> int:
    """The seed that belongs to `key`, in 0 … 2³²-1."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=4).digest())


def generator(*key: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator in the state that belongs to `key`."""
    return torch.Generator(device).manual_seed(seed(*key))


def noisy_batch(
    images: Tensor, batch_size: int, draws: torch.Generator, law: str = "square"
) -> tuple[Tensor, Tensor, Tensor]:
    """A training batch: noisy images y = x + σz and the noise σz, each (batch_size, C, H, W) float32, and σ
    (batch_size, 1, 1, 1).

    Images are drawn with replacement from stored `images` (N, C, H, W), and σ for each by a law:

        square:       σ = u²,  u ~ U[0, 1]   (the paper's)
        lognormal:    ln σ ~ N(-1.9, 1.2²), σ ≤ 1   (Karras et al. 2022, for intensities in [0, 1] rather than [-1, 1])
        log_uniform:  input PSNR ~ U[0, 42] dB
    """
    device = images.device
    chosen = torch.randint(len(images), (batch_size,), generator=draws, device=device)
    clean = unit(images, chosen)
    sigma = _sigma(law, (batch_size, 1, 1, 1), draws, device)
    noise = sigma * torch.randn(clean.shape, generator=draws, device=device)
    return clean + noise, noise, sigma


def _sigma(law: str, shape: tuple[int, ...], draws: torch.Generator, device: torch.device) -> Tensor:
    if law == "lognormal":
        mean, sd = LOGNORMAL
        z = torch.randn(shape, generator=draws, device=device)
        return (mean + sd * z).exp().clamp_max(1)
    u = torch.rand(shape, generator=draws, device=device)
    if law == "log_uniform":
        return (u * math.log(SIGMAS[-1])).exp()
    return u.square()
