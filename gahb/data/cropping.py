"""From a decoded image to a gray square: which part of it is used, and how it becomes `resolution` pixels wide.

gray is the mean of the colour channels; resizing is Pillow's bicubic, which averages over the source pixels when it
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


def gray_square(pixels: NDArray[np.uint8], crop: str) -> NDArray[np.float32]:
    """(height, width) or (height, width, channels), 0…255 → the cropped square, mean of the channels, float32 0…255.

    The crop "lsun" is the square of LSUN_SIDE at the top left; for any other the image's size decides.
    """
    height, width = pixels.shape[:2]
    if crop == "lsun":
        top, left, side = 0, 0, LSUN_SIDE
    elif (width, height) in CELEBA_SIZES:
        top, left = CELEBA_SIZES[width, height]
        side = width - 2 * left if width == 178 else width - 2 * left - 1
    else:
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
    square = pixels[top : top + side, left : left + side]
    if square.ndim == 2:
        return square.astype(np.float32)
    gray = square[..., 0].astype(np.float32)
    channels = min(3, square.shape[2])
    for channel in range(1, channels):
        gray += square[..., channel]
    gray /= channels
    return gray


def resize(square: NDArray[np.float32], side: int) -> NDArray[np.uint8]:
    """A square image at `side`×`side`, rounded to 0…255."""
    if square.shape[0] != side:
        square = np.asarray(Image.fromarray(square).resize((side, side), Image.Resampling.BICUBIC))
    return np.rint(square.clip(0, 255)).astype(np.uint8)


def thumbnail(square: NDArray[np.float32]) -> NDArray[np.float32]:
    """The square averaged over boxes to THUMBNAIL×THUMBNAIL."""
    return np.asarray(Image.fromarray(square).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX))
