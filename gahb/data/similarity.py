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

from gahb import progress
from gahb.data import intensity

BLOCK = 2048
"""Images on a side of a block of cosines: 4 BLOCK² bytes, and 8 BLOCK bytes a pixel where whole images must be seen."""

PIXELS = 1 << 17
"""Pixels that are converted to floating point at once, so that they stay in the processor's cache."""

ROUNDING = 1e-4
"""More than float32 can err in a cosine."""

COARSENESS = (4, 2, 1)
"""Pixels a side of the boxes over which images are averaged, the coarsest first."""

FINEST = COARSENESS[-1]

FEW = 1 / 128
"""The share of a block's pairs that are computed in full rather than bounded once more."""


def unit(images: Tensor, *, centred: bool, dtype: torch.dtype = torch.float32) -> Tensor:
    """Images (n, …) as unit vectors (n, d); stored ones in the units they are stored in."""
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

    1. The first block of images is seen whole, so that later ones have something to beat.
    2. Of each later block, bounds on the cosines come from coarse versions; a pair whose bound does not exceed the best
       of its sample is ruled out.
    3. Where few pairs are left, these are computed in full. Otherwise the block is seen again in the next finer
       version, and so are the blocks after it.
    4. In the finest version, which is the images themselves, bounds are cosines but for rounding. The pair of the
       largest is computed for every sample, then those that rounding leaves open.

    Where those are more than FEW of a block's pairs, it is float32 that chooses among them.
    """
    if not len(samples):
        return torch.empty(0), torch.empty(0, dtype=torch.int64)
    search = _ClosestSearch(samples, images, centred)
    boxes = list(COARSENESS)
    for start in range(0, len(images), BLOCK):
        while not search.settle(start, boxes[0] if start else FINEST):
            boxes.pop(0)
    return search.best.cpu(), search.rows.cpu()


class _ClosestSearch:
    """The largest cosine of each sample so far, `best` (n,), and the row of its image, `rows` (n,)."""

    def __init__(self, samples: Tensor, images: Tensor, centred: bool) -> None:
        self.images, self.centred = images, centred
        self.targets = unit(samples.to(images.device), centred=centred, dtype=torch.float64)
        shaped = self.targets.reshape(len(samples), *images.shape[1:])
        self.coarse = {boxes: _coarse(shaped, boxes, centred=False) for boxes in COARSENESS}
        self.everyone = torch.arange(len(samples), device=images.device)
        self.best = torch.full((len(samples),), -torch.inf, device=images.device)
        self.rows = torch.zeros_like(self.everyone)

    def settle(self, start: int, boxes: int) -> bool:
        """Compute what the bounds leave of the block at row `start`; False if that is too much, and nothing is done."""
        bounds = self._bounds(self.images[start : start + BLOCK], boxes)
        if boxes == FINEST:
            self._compute(self.everyone, bounds.argmax(dim=1) + start)
        hopeful = (bounds.amax(dim=1) > self.best).nonzero()[:, 0]
        sample, column = (bounds[hopeful] > self.best[hopeful, None]).nonzero(as_tuple=True)
        few = len(sample) <= FEW * bounds.numel()
        if few:
            self._compute(hopeful[sample], column + start)
        return few or boxes == FINEST

    def _bounds(self, block: Tensor, boxes: int) -> Tensor:
        """Upper bounds on the cosines of samples and a block's images (m, …, H, W): (n, m)."""
        (ours, our_rest), (theirs, their_rest) = self.coarse[boxes], _coarse(block, boxes, centred=self.centred)
        return (ours @ theirs.T).addr_(our_rest, their_rest)

    def _compute(self, sample: Tensor, row: Tensor) -> None:
        """Compute the cosines of pairs, (m,) and (m,), and keep the best."""
        value = _cosines_of_pairs(self.targets, sample, self.images, row, centred=self.centred).float()
        best = self.best.scatter_reduce(0, sample, value, "amax")
        winners = value == best[sample]
        rows = torch.where(best > self.best, len(self.images), self.rows)
        self.rows = rows.scatter_reduce(0, sample[winners], row[winners], "amin")
        self.best = best


def _coarse(images: Tensor, boxes: int, *, centred: bool) -> tuple[Tensor, Tensor]:
    """Images (n, …, H, W) as unit vectors, projected on the averages over boxes of that many pixels a side, in an
    orthonormal basis, and the norm of the rest: (n, k), (n,). The rest is enlarged a little to cover rounding."""
    height, width = images.shape[-2] // boxes, images.shape[-1] // boxes
    parts = []
    for some in images.split(max(1, 4 * PIXELS // images[0].numel())):
        flat, norm = _flat(some, centred, torch.float32)
        if boxes > 1:
            inner = flat.view(len(some), -1, *images.shape[-2:])[..., : height * boxes, : width * boxes]
            inner = inner.reshape(len(some), inner.shape[1], height, boxes, width, boxes)
            flat = inner.sum(dim=3).sum(dim=4).flatten(1) / boxes
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
    """Euclidean distances of each sample (n, …) in [0, 1] to its closest and second closest stored image (N, …), N ≥ 2:
    (n, 2)."""
    targets = samples.flatten(1).float()
    best = torch.full((len(samples), 2), torch.inf)
    for start in range(0, len(images), BLOCK):
        block = intensity.unit(images[start : start + BLOCK]).flatten(1)
        best = torch.cat([best, torch.cdist(targets, block)], dim=1).topk(2, largest=False).values
    return best


def near_duplicates(images: NDArray[np.float32], threshold: float) -> NDArray[np.bool_]:
    """True for each image (n, H, W) that has |mean-removed cosine| > threshold with an earlier one, dropped or not:
    (n,).

    1. Each block of images is held against itself and every earlier block. Bounds on the |cosines| come from coarse
       versions; pairs whose bound does not exceed the threshold are ruled out, and so are images found before.
    2. The rest are computed in float32.
    3. Those within rounding of the threshold are computed in float64, which decides.
    """
    search = _DuplicateSearch(torch.from_numpy(images), threshold)
    blocks = [(later, earlier) for later in range(0, len(images), BLOCK) for earlier in range(0, later + 1, BLOCK)]
    for later, earlier in progress.track(blocks, "looking for near-duplicates"):
        search.compare(later, earlier)
    return search.duplicate.numpy()


class _DuplicateSearch:
    """Which images (n, H, W) are known to be near-duplicates of earlier ones: `duplicate` (n,)."""

    def __init__(self, images: Tensor, threshold: float) -> None:
        self.images, self.threshold = images, threshold
        self.vectors = unit(images, centred=True)
        self.coarse, self.rest = _coarse(images, 2, centred=True)
        self.duplicate = torch.zeros(len(images), dtype=torch.bool)

    def compare(self, later: int, earlier: int) -> None:
        """Hold the images of the block at row `later`, but for known duplicates, against those of another."""
        bounds = self._bounds(slice(later, later + BLOCK), slice(earlier, earlier + BLOCK))
        if later == earlier:
            bounds.tril_(diagonal=-1)
        unknown = ~self.duplicate[later : later + BLOCK]
        rows = ((bounds.amax(dim=1) > self.threshold) & unknown).nonzero()[:, 0]
        possible = bounds[rows] > self.threshold
        columns = possible.any(dim=0).nonzero()[:, 0]
        exceeds = self._exceed(rows + later, columns + earlier, possible[:, columns])
        self.duplicate[rows + later] = exceeds.any(dim=1)

    def _bounds(self, later: slice, earlier: slice) -> Tensor:
        """Upper bounds on the |cosines| of two blocks, (m, k)."""
        return (self.coarse[later] @ self.coarse[earlier].T).abs_().addr_(self.rest[later], self.rest[earlier])

    def _exceed(self, rows: Tensor, columns: Tensor, possible: Tensor) -> Tensor:
        """Whether images[rows[i]] and images[columns[j]] exceed the threshold, where that is possible, (m, k)."""
        excess = (self.vectors[rows] @ self.vectors[columns].T).abs_().sub_(self.threshold)
        excess[~possible] = -1
        exceeds = excess > 0
        i, j = (excess.abs() <= ROUNDING).nonzero(as_tuple=True)
        targets = unit(self.images[rows], centred=True, dtype=torch.float64)
        cosines = _cosines_of_pairs(targets, i, self.images, columns[j], centred=True)
        exceeds[i, j] = cosines.abs() > self.threshold
        return exceeds
