"""Preparing JPEGs of CelebA's size, 178×218 in colour, at 80×80 with thumbnails: a loop over files against all cores.

Wall-clock time, the start of the processes included; the loop does the same to each file, in this process. The detail
has processor time, too, of all processes, which says more on a machine that others use.
"""

import io
import os
import tempfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.harness import Row, alternate, main
from gahb.data.cropping import THUMBNAIL, resize, thumbnail
from gahb.data.decoding import decode
from gahb.data.image_files import ImageFiles

COUNT, SIDE, ROUNDS = 3000, 80, 3


def photographs(file: Path) -> None:
    """A zip of smooth images with some noise, as JPEGs of about the size of CelebA's."""
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(file, "w") as archive:
        for index in range(COUNT):
            smooth = Image.fromarray(rng.integers(0, 256, (11, 9, 3), dtype=np.uint8)).resize((178, 218))
            noisy = np.asarray(smooth) * 0.9 + rng.uniform(0, 25, (218, 178, 3))
            jpeg = io.BytesIO()
            Image.fromarray(noisy.astype(np.uint8)).save(jpeg, "JPEG", quality=75)
            archive.writestr(f"{index:06d}.jpg", jpeg.getvalue())


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        photographs(Path(folder) / "faces.zip")
        source = ImageFiles(str(Path(folder) / "faces.zip"))
        size = (Path(folder) / "faces.zip").stat().st_size / COUNT
        keys, frame = source.keys, source.frame
        images, thumbnails = np.empty((COUNT, SIDE, SIDE), np.uint8), np.empty((COUNT, THUMBNAIL, THUMBNAIL), "f4")

        def loop() -> None:
            for row, key in enumerate(keys):
                square = source.square(key, frame)
                images[row], thumbnails[row] = resize(square, SIDE), thumbnail(square)

        def by(cores: int) -> None:
            decode(ImageFiles(source.path), keys, frame, images, thumbnails, cores)

        def spent(way: Callable[[], None]) -> float:
            """Processor time of this process and of those that it waited for."""
            before = os.times()
            way()
            return sum(os.times()[:4]) - sum(before[:4])

        counts = sorted({1, 2, os.cpu_count() or 1})
        ways: dict[str, Callable[[], None]] = {"loop": loop, **{str(n): partial(by, n) for n in counts}}
        times = alternate(ways, rounds=ROUNDS)
        cpu = {name: min(spent(way) for _ in range(ROUNDS)) for name, way in ways.items()}
    found = []
    for cores in counts:
        own, ratio = str(cores), times["loop"].wall / times[str(cores)].wall
        detail = (
            f"{COUNT / times[own].wall:.0f} against {COUNT / times['loop'].wall:.0f} images/s; processor time an image "
            f"{1000 * cpu[own] / COUNT:.2f} against {1000 * cpu['loop'] / COUNT:.2f} ms"
        )
        words = f"{COUNT} JPEGs of {size / 1000:.0f} kB, gray at {SIDE}×{SIDE}, by {cores}"
        target = 0.8 * cores
        found.append(Row(words, "a loop over files", ratio, f"≥ {target:g}×", ratio >= target, detail))
    return found


if __name__ == "__main__":
    main(rows, __doc__ or "")
