"""Noise, as a function of its key and of nothing else.

y = x + σ z with z ~ N(0, Id). Every draw comes from a generator seeded by what it is for, such as
("batch", seed, subset, step), so training resumes exactly at any step and two models can share one noise.
"""

import hashlib

import torch
from torch import Tensor

from gahb.data.intensity import unit


def seed(*key: str | int) -> int:
    """The seed that belongs to `key`, in 0 … 2³²-1."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=4).digest())


def generator(*key: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator in the state that belongs to `key`."""
    return torch.Generator(device).manual_seed(seed(*key))


def noisy_batch(images: Tensor, batch_size: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """A training batch: noisy images y = x + σz and the noise σz, each (batch_size, C, H, W) float32.

    Images are drawn with replacement from stored `images` (N, C, H, W); σ = u² for each, u ~ U[0, 1].
    """
    device = images.device
    chosen = torch.randint(len(images), (batch_size,), generator=draws, device=device)
    clean = unit(images, chosen)
    sigma = torch.rand(batch_size, 1, 1, 1, generator=draws, device=device).square()
    noise = sigma * torch.randn(clean.shape, generator=draws, device=device)
    return clean + noise, noise
