"""The closest of 100,000 images at 80×80 to each of 1000 samples, against one dense product.

Wall-clock time on all cores or a GPU. Rows for two kinds of images: where coarse versions tell most pairs apart, and
white noise, where they tell nothing and every pixel must be seen.
"""

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness import Row, alternate, main, matrix_rate
from benchmarks.stacks import smooth_images
from gahb.data.similarity import BLOCK, closest, unit

COUNT, SIDE, SAMPLES = 100_000, 80, 1000


def dense(samples: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """All cosines at once."""
    value, row = (unit(samples, centred=True) @ unit(images, centred=True).T).max(dim=1)
    return value, row


def compared(kind: str, stack: Tensor, rounds: int, target: float | None) -> Row:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    images, samples = stack[SAMPLES:].to(device), stack[:SAMPLES].to(device).float() / 255
    _, found = closest(samples, images, centred=True)
    _, expected = dense(samples, images)
    same = torch.equal(found, expected.cpu())
    ways = {"ours": lambda: closest(samples, images, centred=True), "dense": lambda: dense(samples, images)}
    times = alternate(ways, rounds=rounds, warmup=0)
    ours, theirs = times["ours"].wall, times["dense"].wall
    ratio = theirs / ours
    rate = 2 * len(images) * SAMPLES * SIDE**2 / ours / matrix_rate(torch.float32, device)
    pixels = SIDE**2
    temporary = SAMPLES * (BLOCK * 4 + pixels * 14) + BLOCK * pixels * 8
    return Row(
        f"closest of {len(images):,} {kind} images at {SIDE}×{SIDE} for {SAMPLES} samples, exact",
        "one dense product, float32",
        ratio,
        f"≥ {target:g}×" if target else "",
        bool(ratio >= target and same) if target else None,
        f"{ours:.2f} s against {theirs:.2f} s; pairs at {rate:.1f} × the rate of one float32 "
        f"product; rows {'equal' if same else 'DIFFER'}; about {temporary / 1e6:.0f} MB beside the images "
        f"for any number of them (BLOCK = {BLOCK}), "
        f"against {len(images) * (pixels + SAMPLES) * 4 / 1e9:.1f} GB",
    )


def rows() -> list[Row]:
    noise = np.random.default_rng(0).integers(0, 256, (10_000 + SAMPLES, SIDE, SIDE), dtype=np.uint8)
    return [
        compared("C^α", torch.from_numpy(smooth_images(COUNT + SAMPLES, SIDE)).unsqueeze(1), 1, 4),
        compared("white-noise", torch.from_numpy(noise).unsqueeze(1), 3, None),
    ]


if __name__ == "__main__":
    main(rows, __doc__)
