"""Cosine similarity of images: of pairs, to the closest training image, and of near-duplicates.

    cos(a, b) = <a, b> / (‖a‖ ‖b‖),    raw (Figure 2) or after each image's mean is removed.

Two unrelated images in [0, 1] already have a high raw cosine, since both are positive; the mean-removed one is
near 0 for them. A constant image has mean-removed cosine 0 with everything.

Searches look at coarse images first. With P the orthogonal projection on averages over boxes of pixels, unit a and
b have

    | <a, b> - <Pa, Pb> | ≤ ‖a - Pa‖ ‖b - Pb‖    (Cauchy-Schwarz),

which rules out almost all pairs at a fraction of the cost; the rest are computed in full, so the results are exact.
Memory is bounded by BLOCK whatever the number of images, beside what is held of each sample or thumbnail.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BLOCK = 2048
"""Images on a side of a block of cosines: 4 BLOCK² bytes, and 8 BLOCK bytes a pixel where whole images must be seen."""

PIXELS = 1 << 17
"""Pixels that are converted to floating point at once, so that they stay in the processor's cache."""

ROUNDING = 1e-4
"""More than float32 can err in a cosine."""


def unit(images: Tensor, *, centred: bool, dtype: torch.dtype = torch.float32) -> Tensor:
    """Images (n, …) as unit vectors (n, d); uint8 is read as 0…255."""
    flat, norm = _flat(images, centred, dtype)
    return flat / norm


def _flat(images: Tensor, centred: bool, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Images (n, …) as vectors (n, d) and what divides them to unit length, (n, 1): infinity for a constant one."""
    flat = images.flatten(1).to(dtype)
    if centred:
        flat = flat - flat.mean(dim=1, keepdim=True)
    norm = flat.norm(dim=1, keepdim=True)
    return flat, torch.where(norm > 1e-6, norm, torch.inf)


def cosine(a: Tensor, b: Tensor, *, centred: bool) -> Tensor:
    """Cosine of a[i] and b[i] for images (n, …): (n,) in [-1, 1]."""
    return (unit(a, centred=centred) * unit(b, centred=centred)).sum(dim=1)


def mismatched_cosine(a: Tensor, b: Tensor, *, centred: bool) -> Tensor:
    """Mean cosine of a[i] with every b[j], j ≠ i, for n ≥ 2 images: (n,). What chance alone gives a pair."""
    products = unit(a, centred=centred) @ unit(b, centred=centred).T
    return (products.sum(dim=1) - products.diagonal()) / (len(a) - 1)


def closest(samples: Tensor, images: Tensor, *, centred: bool) -> tuple[Tensor, Tensor]:
    """For each sample (n, …, H, W) the largest cosine to an image (N, …, H, W) and that image's row, the lowest of
    equal ones: (n,) float32, (n,) int64. Computed where the images are.

    Where more than one image in 128 is within rounding of the best, it is float32 that chooses among those.
    """
    targets = unit(samples.to(images.device), centred=centred, dtype=torch.float64)
    shaped = targets.reshape(len(samples), *images.shape[1:])
    coarse = {boxes: _coarse(shaped, boxes, centred=False) for boxes in (4, 2, 1)}
    everyone = torch.arange(len(samples), device=images.device)
    best = torch.full((len(samples),), -torch.inf, device=images.device)
    rows = torch.zeros_like(everyone)

    def consider(sample: Tensor, row: Tensor) -> None:
        """Compute the cosines of pairs, (m,) and (m,), and keep the best."""
        nonlocal best, rows
        value = _cosines_of_pairs(targets, sample, images, row, centred=centred).float()
        top = best.scatter_reduce(0, sample, value, "amax")
        winners = value == top[sample]
        rows = torch.where(top > best, len(images), rows).scatter_reduce(0, sample[winners], row[winners], "amin")
        best = top

    boxes = 1  # of the first block all is seen, so that the others have something to beat
    for start in range(0, len(images), BLOCK):
        block = images[start : start + BLOCK]
        while True:
            (ours, our_rest), (theirs, their_rest) = coarse[boxes], _coarse(block, boxes, centred=centred)
            bounds = (ours @ theirs.T).addr_(our_rest, their_rest)
            if boxes == 1:
                consider(everyone, bounds.argmax(dim=1) + start)
            hopeful = (bounds.amax(dim=1) > best).nonzero()[:, 0]
            sample, column = (bounds[hopeful] > best[hopeful, None]).nonzero(as_tuple=True)
            few = len(sample) <= bounds.numel() // 128
            if few:
                consider(hopeful[sample], column + start)
            if few or boxes == 1:
                break
            boxes //= 2
        if start == 0:
            boxes = 4
    return best.cpu(), rows.cpu()


def _coarse(images: Tensor, boxes: int, *, centred: bool) -> tuple[Tensor, Tensor]:
    """Images (n, …, H, W) as unit vectors, projected on the averages over boxes of that many pixels a side, in an
    orthonormal basis, and the norm of the rest: (n, k), (n,). The rest is enlarged a little to cover rounding."""
    height, width = images.shape[-2] // boxes, images.shape[-1] // boxes
    parts = []
    for some in images.split(max(1, 4 * PIXELS // images[0].numel())):
        flat, norm = _flat(some, centred, torch.float32)
        if boxes > 1:
            inner = flat.view(len(some), *images.shape[-2:])[:, : height * boxes, : width * boxes]
            flat = inner.reshape(len(some), height, boxes, width, boxes).sum(dim=2).sum(dim=3).flatten(1) / boxes
        parts.append(flat / norm)
    projected = torch.cat(parts)
    return projected, ((1 - projected.square().sum(dim=1)).clamp(min=0) + ROUNDING).sqrt()


def _cosines_of_pairs(targets: Tensor, sample: Tensor, images: Tensor, row: Tensor, *, centred: bool) -> Tensor:
    """Cosine of each targets[sample] (unit, float64) and images[row], summed in float64: (m,)."""
    size = max(1, PIXELS // targets.shape[1])
    values = []
    for i, j in zip(sample.split(size), row.split(size), strict=True):
        flat, norm = _flat(images[j], centred, torch.float64)
        values.append((targets[i] * flat).sum(dim=1) / norm[:, 0])
    return torch.cat(values)


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
    """True for each image (n, H, W) that has |mean-removed cosine| > threshold with an earlier one, dropped or not:
    (n,)."""
    stack = torch.from_numpy(images)
    vectors = unit(stack, centred=True)
    coarse, rest = _coarse(stack, 2, centred=True)
    drop = torch.zeros(len(stack), dtype=torch.bool)
    for start in range(0, len(stack), BLOCK):
        later = slice(start, start + BLOCK)
        for other in range(0, start + 1, BLOCK):
            earlier = slice(other, other + BLOCK)
            bounds = (coarse[later] @ coarse[earlier].T).abs_().addr_(rest[later], rest[earlier])
            if other == start:
                bounds.tril_(diagonal=-1)
            rows = ((bounds.amax(dim=1) > threshold) & ~drop[later]).nonzero()[:, 0]
            above = bounds[rows] > threshold
            columns = above.any(dim=0).nonzero()[:, 0]
            excess = (vectors[rows + start] @ vectors[columns + other].T).abs_().sub_(threshold)
            excess[~above[:, columns]] = -1
            i, j = (excess.abs() <= ROUNDING).nonzero(as_tuple=True)
            targets = unit(stack[rows + start], centred=True, dtype=torch.float64)
            cosines = _cosines_of_pairs(targets, i, stack, columns[j] + other, centred=True)
            excess[i, j] = (cosines.abs() > threshold).float() - 0.5
            drop[rows + start] = (excess > 0).any(dim=1)
    return drop.numpy()
