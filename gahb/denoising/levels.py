"""At which noise the denoisers' PSNR is measured; without torch, so that its cost can be counted quickly."""

from enum import StrEnum

INPUT_PSNR = tuple(range(0, 43, 3))
"""The noise levels of Figure 1: input PSNR 0, 3, … 42 dB, which is σ from 1 down to 0.0079."""

SIGMAS = tuple(10 ** (-level / 20) for level in INPUT_PSNR)

EVALUATION_BATCH = 512
"""Noisy images that are denoised at once, up to 80×80; of larger ones as many as have that many pixels."""


def evaluation_batch(resolution: int) -> int:
    """How many noisy images of so many pixels a side are denoised at once."""
    return max(1, EVALUATION_BATCH * 80**2 // max(80, resolution) ** 2)


class Gap(StrEnum):
    """Over what the PSNR gap is averaged evenly: σ in [0, 1], or input PSNR in decibels; see `gahb.denoising.psnr`."""

    SIGMA = "sigma"
    DB = "db"

    @property
    def metric(self) -> str:
        """Its name among a trial's metrics."""
        return "psnr_gap" if self is Gap.SIGMA else "psnr_gap_db"

    @property
    def average(self) -> str:
        """What the average is over, in words."""
        return "σ" if self is Gap.SIGMA else "input PSNR"
