"""At which noise the denoisers' PSNR is measured; without torch, so that its cost can be counted quickly."""

INPUT_PSNR = tuple(range(0, 43, 3))
"""The noise levels of Figure 1: input PSNR 0, 3, … 42 dB, which is σ from 1 down to 0.0079."""

SIGMAS = tuple(10 ** (-level / 20) for level in INPUT_PSNR)

EVALUATION_BATCH = 512
"""Noisy images that are denoised at once, up to 80×80; of larger ones as many as have that many pixels."""


def evaluation_batch(resolution: int) -> int:
    """How many noisy images of so many pixels a side are denoised at once."""
    return max(1, EVALUATION_BATCH * 80**2 // max(80, resolution) ** 2)
