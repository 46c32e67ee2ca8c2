"""Near-duplicates among 20,000 images at 80×80, against the full matrix of cosines.

Wall-clock time on all cores for the search itself, from thumbnails on; peak memory of whole processes, from images on.
"""

import subprocess
import sys

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from benchmarks.harness import Row, alternate, main, matrix_rate, peak_memory
from benchmarks.stacks import smooth_images
from gahb.data.cropping import THUMBNAIL
from gahb.data.similarity import near_duplicates, unit

COUNT, SIDE, THRESHOLD = 20_000, 80, 0.95


def pooled(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Averages over boxes, (n, THUMBNAIL, THUMBNAIL)."""
    return functional.avg_pool2d(torch.from_numpy(images).float()[:, None], SIDE // THUMBNAIL)[:, 0].numpy()


def thumbnails(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The same, of a few images at a time."""
    return np.concatenate([pooled(images[start : start + 256]) for start in range(0, len(images), 256)])


def full_matrix(small: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The definition: all cosines at once."""
    vectors = unit(torch.from_numpy(small), centred=True)
    return ((vectors @ vectors.T).abs() > THRESHOLD).tril(diagonal=-1).any(dim=1).numpy()


def search(way: str) -> NDArray[np.bool_]:
    """Generate the images and find the near-duplicates among them, in the way named; "images" stops before."""
    images = smooth_images(COUNT, SIDE)
    if way == "images":
        return np.zeros(COUNT, bool)
    return full_matrix(pooled(images)) if way == "full" else near_duplicates(thumbnails(images), THRESHOLD)


def memory(way: str) -> int:
    """Peak memory, in bytes, of a process that does `search(way)`."""
    return int(subprocess.check_output([sys.executable, "-m", "benchmarks.duplicates", way]))


def rows() -> list[Row]:
    peaks = {way: memory(way) for way in ("images", "ours", "full")}  # first: each begins with the peak of its parent
    small = thumbnails(smooth_images(COUNT, SIDE))
    same = np.array_equal(near_duplicates(small, THRESHOLD), full_matrix(small))
    ways = {"ours": lambda: near_duplicates(small, THRESHOLD), "full": lambda: full_matrix(small)}
    times = alternate(ways, rounds=3)
    ratio = times["full"].wall / times["ours"].wall
    flops = COUNT * (COUNT + 1) * THUMBNAIL**2 / times["ours"].wall
    share = (peaks["full"] - peaks["images"]) / (peaks["ours"] - peaks["images"])
    work = f"near-duplicates, {COUNT:,} C^α images at {SIDE}×{SIDE} pooled to {THUMBNAIL}×{THUMBNAIL}"
    detail = (
        f"{times['ours'].wall:.2f} s against {times['full'].wall:.2f} s; pairs at "
        f"{flops / matrix_rate(torch.float32):.1f} × the rate of one float32 product; "
        f"results {'equal' if same else 'DIFFER'}"
    )
    held = (
        f"whole processes {peaks['ours'] / 1e9:.2f} GB against {peaks['full'] / 1e9:.2f} GB; "
        f"of both, {peaks['images'] / 1e9:.2f} GB are libraries and images, left out of the ratio"
    )
    return [
        Row(work, "all N×N cosines at once", ratio, "≥ 4.5×", ratio >= 4.5 and same, detail),
        Row(f"{work}: peak memory", "all N×N cosines at once", share, "≥ 10×", share >= 10, held),
    ]


if __name__ == "__main__":
    if sys.argv[1:] in (["images"], ["ours"], ["full"]):
        search(sys.argv[1])
        print(peak_memory())
    else:
        main(rows, __doc__)
