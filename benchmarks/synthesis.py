"""C^α images at 80×80, in batches, against a loop over images that follows Algorithm 2 line by line.

CPU time on one thread, and wall-clock time of preparing a data set on all cores.
"""

import os
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import Row, alternate, main
from gahb.data.c_alpha import CAlpha
from gahb.data.dataset import Dataset, prepare
from gahb.data.manifold import CHUNK
from gahb.storage.local import Folder

SIDE, ALPHA, COUNT = 80, 2.0, 2048


def one_image(rng: np.random.Generator) -> NDArray[np.uint16]:
    """Algorithm 2 for one image."""
    k = np.fft.fftfreq(SIDE, 1 / SIDE)
    line, plane = np.abs(k), np.hypot(k[:, None], k[None, :])
    line.flat[0] = plane.flat[0] = 1
    contour = np.fft.ifft(line**-ALPHA * np.fft.fft(rng.uniform(-1, 1, SIDE))).real
    bright, dark = (np.fft.ifft2(plane**-ALPHA * np.fft.fft2(rng.uniform(-1, 1, (SIDE, SIDE)))).real for _ in range(2))
    low, high = rng.uniform(0, 1, 2)
    bright = low + (1 - low) * (bright - bright.min()) / (bright.max() - bright.min())
    dark = high * (dark - dark.min()) / (dark.max() - dark.min())
    below, above = (bright, dark) if rng.integers(2) else (dark, bright)
    mask = (np.arange(SIDE)[:, None] >= np.rint(contour * SIDE) + SIDE // 2).astype(float)
    padded = np.pad(mask, ((1, 0), (1, 0)), mode="reflect")
    mask = (padded[1:, 1:] + padded[:-1, 1:] + padded[1:, :-1] + padded[:-1, :-1]) / 4
    return np.rint(0xFFFF * (mask * below + (1 - mask) * above)).astype(np.uint16)


def loop() -> NDArray[np.uint16]:
    rng = np.random.default_rng(0)
    return np.stack([one_image(rng) for _ in range(COUNT)])


def chunks() -> None:
    for index in range(COUNT // CHUNK):
        CAlpha(ALPHA).chunk(SIDE, index)


def data_set() -> None:
    with tempfile.TemporaryDirectory() as folder:
        prepare(Dataset(CAlpha(ALPHA), SIDE), Folder(Path(folder)), COUNT, say=lambda line: None)


def rows() -> list[Row]:
    times = alternate({"loop": loop, "chunks": chunks, "data set": data_set}, rounds=5)
    cpu = times["loop"].cpu / times["chunks"].cpu
    wall = times["loop"].wall / times["data set"].wall
    work = f"{COUNT} C^α images at {SIDE}×{SIDE}"
    return [
        Row(
            work,
            "a loop over images",
            cpu,
            "",
            None,
            f"{COUNT / times['chunks'].cpu:.0f} against {COUNT / times['loop'].cpu:.0f} images/s; CPU time, one "
            "thread; double precision throughout, of which random numbers and FFTs alone are three quarters",
        ),
        Row(
            f"{work}, prepared, hashed and stored",
            "a loop over images, neither hashed nor stored",
            wall,
            "≥ 5×",
            wall >= 5,
            f"{COUNT / times['data set'].wall:.0f} images/s; wall clock, {os.cpu_count()} cores",
        ),
    ]


if __name__ == "__main__":
    main(rows, __doc__)
