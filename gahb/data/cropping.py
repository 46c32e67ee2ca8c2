"""From a decoded image to a square: which part of it is used, and how it becomes `resolution` pixels wide.

Gray is the mean of the colour channels; resizing is Pillow's bicubic, which averages over the source pixels when it
shrinks; the result is rounded to 8 bits once, at the end.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CELEBA_SIZES = {(178, 218): (29, 9), (89, 109): (14, 4)}
"""(width, height) of aligned CelebA files as distributed, and at half size → rows and columns cut at the top left;
the crop is square, 160×160 or 80×80."""

LSUN_SIDE = 256
"""Side of the square at the top left of an LSUN image, whose shorter side has that length."""

THUMBNAIL = 20
"""Side of the small version on which near-duplicates are looked for."""


def crop_rule(width: int, height: int) -> str:
    """The name of the crop for images of this size: "celeba" for CelebA's frame, else "centre" (largest square)."""
    return "celeba" if (width, height) in CELEBA_SIZES else "centre"


def square_of(width: int, height: int, crop: str) -> tuple[int, int, int]:
    """The square that is used of an image: top, left, side.

    The crop "lsun" is the square of LSUN_SIDE at the top left; for any other the image's size decides.
    """
    if crop == "lsun":
        return 0, 0, LSUN_SIDE
    if (width, height) in CELEBA_SIZES:
        top, left = CELEBA_SIZES[width, height]
        return top, left, width - 2 * left if width == 178 else width - 2 * left - 1
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side


def coloured(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The first three channels of (height, width) or (height, width, channels), (3, height, width) float32; gray is all
    three of them."""
    if pixels.ndim == 2 or pixels.shape[2] < 3:
        return np.repeat(gray(pixels)[None], 3, axis=0)
    return np.moveaxis(pixels[..., :3], 2, 0).astype(np.float32)


def gray(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The mean of the first three channels of (height, width) or (height, width, channels), float32."""
    if pixels.ndim == 2:
        return pixels.astype(np.float32)
    mean = pixels[..., 0].astype(np.float32)
    channels = min(3, pixels.shape[2])
    for channel in range(1, channels):
        mean += pixels[..., channel]
    mean /= channels
    return mean


def resize(square: NDArray[np.float32], side: int) -> NDArray[np.uint8]:
    """A square image, (…, n, n), at (…, side, side), rounded to 0…255."""
    if square.ndim > 2:
        return np.stack([resize(channel, side) for channel in square])
    if square.shape[0] != side:
        square = np.asarray(Image.fromarray(square).resize((side, side), Image.Resampling.BICUBIC))
    return np.rint(square.clip(0, 255)).astype(np.uint8)


def thumbnail(square: NDArray[np.float32]) -> NDArray[np.float32]:
    """A square, (n, n) or (3, n, n), averaged over channels and boxes to THUMBNAIL×THUMBNAIL."""
    if square.ndim > 2:
        square = np.ascontiguousarray(square.mean(axis=0))
    return np.asarray(Image.fromarray(square).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX))
