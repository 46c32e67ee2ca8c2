"""Jacobians and their spectra against one backward pass a row; see `benchmarks.jacobian`."""

from benchmarks import jacobian
from benchmarks.gpu.checks import ON_GPU, Checks, compared
from gahb.models.architectures import UNet

TINY = UNet(1, 4)


def checks() -> Checks:
    rows = jacobian.rows() if ON_GPU else jacobian.rows((TINY, 8), (TINY, 12), ("float32",), 8)
    yield from ((row.work, lambda row=row: compared(row)) for row in rows)
