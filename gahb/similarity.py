"""Cosine similarity of images: of pairs, to the closest training image, and of near-duplicates.

    cos(a, b) = <a, b> / (‖a‖ ‖b‖),    raw (Figure 2) or after each image's mean is removed.

Two unrelated images in [0, 1] already have a high raw cosine, since both are positive; the mean-removed one is
near 0 for them. A constant image has mean-removed cosine 0 with everything. All products run in blocks, so memory
does not grow with the product of the two counts.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BLOCK = 4096
"""Images on a side of a block of cosines: 64 MiB of float32."""


def unit(images: Tensor, *, centred: bool) -> Tensor:
    """Images (n, …) as unit vectors (n, d), float32; uint8 is read as 0…255."""
    flat = images.reshape(len(images), -1).float()
    if centred:
        flat = flat - flat.mean(dim=1, keepdim=True)
    norm = flat.norm(dim=1, keepdim=True)
    return flat / torch.where(norm > 1e-6, norm, torch.inf)


def cosine(a: Tensor, b: Tensor, *, centred: bool) -> Tensor:
    """Cosine of a[i] and b[i] for images (n, …): (n,) in [-1, 1]."""
    return (unit(a, centred=centred) * unit(b, centred=centred)).sum(dim=1)


def mismatched_cosine(a: Tensor, b: Tensor, *, centred: bool) -> Tensor:
    """Mean cosine of a[i] with every b[j], j ≠ i, for n ≥ 2 images: (n,). What chance alone gives a pair."""
    products = unit(a, centred=centred) @ unit(b, centred=centred).T
    return (products.sum(dim=1) - products.diagonal()) / (len(a) - 1)


def closest(samples: Tensor, images: Tensor, *, centred: bool) -> tuple[Tensor, Tensor]:
    """For each sample (n, …) the largest cosine to an image (N, …) and that image's row: (n,) float32, (n,) int64."""
    targets = unit(samples, centred=centred)
    best = torch.full((len(samples),), -torch.inf)
    rows = torch.zeros(len(samples), dtype=torch.int64)
    for start in range(0, len(images), BLOCK):
        values, indices = (targets @ unit(images[start : start + BLOCK], centred=centred).T).max(dim=1)
        rows = torch.where(values > best, indices + start, rows)
        best = torch.maximum(best, values)
    return best, rows


def two_closest_distances(samples: Tensor, images: Tensor) -> Tensor:
    """Euclidean distances of each sample (n, …) in [0, 1] to its closest and second closest image (N, …) uint8, N ≥ 2:
    (n, 2)."""
    targets = samples.flatten(1).float()
    best = torch.full((len(samples), 2), torch.inf)
    for start in range(0, len(images), BLOCK):
        block = images[start : start + BLOCK].flatten(1).float() / 255
        best = torch.cat([best, torch.cdist(targets, block)], dim=1).topk(2, largest=False).values
    return best


def near_duplicates(images: NDArray[np.float32], threshold: float) -> NDArray[np.bool_]:
    """True for each image (n, d) that has |mean-removed cosine| > threshold with an earlier one: (n,)."""
    vectors = unit(torch.from_numpy(images), centred=True)
    drop = torch.zeros(len(vectors), dtype=torch.bool)
    for start in range(0, len(vectors), BLOCK):
        rows = vectors[start : start + BLOCK]
        for other in range(0, start + 1, BLOCK):
            above = (rows @ vectors[other : other + BLOCK].T).abs() > threshold
            if other == start:
                above = above.tril(diagonal=-1)
            drop[start : start + BLOCK] |= above.any(dim=1)
    return drop.numpy()
