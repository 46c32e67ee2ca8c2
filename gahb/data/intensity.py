"""Stored intensities and the range [0, 1] that everything is computed in.

Photographs are kept in 8 bits, as their files are. Drawn images are kept in 16: rounding to n bits is an error of
variance 1/(12·(2ⁿ-1)²), a PSNR of 58.9 dB for 8 bits and 107.1 dB for 16, above all that a denoiser reaches.
"""

import torch
from torch import Tensor


def unit(images: Tensor, rows: Tensor | None = None) -> Tensor:
    """Intensities in [0, 1], float32, of stored images (n, C, H, W), or of images that are those already, or of the
    given rows of them."""
    if images.dtype == torch.float32:
        return images if rows is None else images[rows]
    if images.dtype == torch.uint16:  # which not every torch can choose from or convert on a GPU
        codes = images.view(torch.int16)
        return ((codes if rows is None else codes[rows]).int() & 0xFFFF).float() / 0xFFFF
    return (images if rows is None else images[rows]).float() / 0xFF


def mean(*images: Tensor) -> float:
    """The mean intensity, in [0, 1], of all stored images (n, C, H, W), on the CPU."""
    in_bytes = [stack.float() * (0xFF / torch.iinfo(stack.dtype).max) for stack in images]
    return float(torch.cat(in_bytes).mean() / 0xFF)
