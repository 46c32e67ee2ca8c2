"""Sampling against one image at a time; see `benchmarks.sampling`."""

from benchmarks import sampling
from benchmarks.gpu.checks import ON_GPU, Checks, compared
from gahb.models.architectures import UNet


def checks() -> Checks:
    rows = sampling.rows() if ON_GPU else sampling.rows(UNet(1, 4), rounds=1)
    yield from ((row.work, lambda row=row: compared(row)) for row in rows)
