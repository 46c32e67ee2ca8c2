"""Cosine similarity of an image's patches to those of a set of images.

    cos(p, q) = <p - p̄, q - q̄> / (‖p - p̄‖ ‖q - q̄‖)

over all pixels and channels of a patch, so that neither brightness nor contrast counts. Patches whose standard
deviation is below CONTRAST are left out on either side, as there is nothing in them to compare.

A sample is cut into patches that do not overlap. Each is held against the patches of images at its own position
(`aligned`), and against those at every position (`anywhere`). The latter takes N·H·W products of S sample patches of d
pixels each, in blocks of bounded memory, on the device of the samples.
"""

import torch
from torch import Tensor
from torch.nn import functional

from gahb.data import intensity

CONTRAST = 0.02
"""The least standard deviation of a patch, of the intensity range; five of 255 gray levels."""

NUMBERS = 1 << 24
"""Of a block's patches or cosines: 64 MiB."""


def patches(images: Tensor, size: int, stride: int) -> Tensor:
    """Square patches of images (n, C, H, W) in [0, 1], row by row, the mean of each removed, of unit length, or 0 where
    there is too little contrast: (n, positions, C·size²)."""
    cut = functional.unfold(images, size, stride=stride).transpose(1, 2)
    centred = cut - cut.mean(dim=2, keepdim=True)
    norm = centred.norm(dim=2, keepdim=True)
    return torch.where(norm >= CONTRAST * cut.shape[2] ** 0.5, centred / norm, 0)


def aligned(samples: Tensor, images: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """For each patch of samples (n, C, H, W) the largest cosine to the patch at its position in an image, stored
    (N, C, H, W), and that image's row: (n, k), NaN and 0 for patches of too little contrast and where N = 0."""
    ours = patches(samples, size, size).transpose(0, 1)
    best = torch.full(ours.shape[:2], -torch.inf, device=samples.device)
    rows = torch.zeros_like(best, dtype=torch.int64)
    block = max(1, NUMBERS // max(ours[:, 0].numel(), ours.shape[0] * ours.shape[1]))
    for start in range(0, len(images), block):
        theirs = patches(intensity.unit(images[start : start + block]).to(samples.device), size, size)
        values, columns = (ours @ theirs.permute(1, 2, 0)).max(dim=2)
        rows = torch.where(values > best, columns + start, rows)
        best = torch.maximum(best, values)
    return _known(best, ours).T, rows.T


def anywhere(samples: Tensor, images: Tensor, size: int) -> Tensor:
    """For each patch of samples (n, C, H, W) the largest cosine to a patch at any position of images, stored
    (N, C, H, W): (n, k), NaN for patches of too little contrast and where N = 0."""
    ours = patches(samples, size, size)
    flat = ours.flatten(0, 1)
    best = torch.full((len(flat),), -torch.inf, device=samples.device)
    positions = (samples.shape[-2] - size + 1) * (samples.shape[-1] - size + 1)
    block = max(1, NUMBERS // (positions * max(flat.shape)))
    for some in images.split(block):
        theirs = patches(intensity.unit(some).to(samples.device), size, 1).flatten(0, 1)
        best = torch.maximum(best, (flat @ theirs.T).amax(dim=1))
    return _known(best.view(ours.shape[:2]), ours)


def _known(best: Tensor, ours: Tensor) -> Tensor:
    """NaN where a patch is 0 or nothing was found."""
    return torch.where(ours.any(dim=2) & best.isfinite(), best, torch.nan)
