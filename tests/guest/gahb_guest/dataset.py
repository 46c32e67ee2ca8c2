"""Checkerboards of two grays."""

from dataclasses import dataclass

import numpy as np

from gahb.plugins import CHUNK, Synthetic, UserError


@dataclass(frozen=True)
class Checkers(Synthetic):
    """Checkerboards with cells of `cell` pixels a side, at any place."""

    name = "checkers"
    cell: int = 3

    def __post_init__(self):
        if self.cell < 1:
            raise UserError(f"cell={self.cell}: must be at least 1")

    def chunk(self, resolution, index):
        rng = np.random.default_rng([0xC4EC, index])
        low, high = rng.uniform(0, 255, (2, CHUNK, 1, 1))
        row, column = rng.integers(0, 2 * self.cell, (2, CHUNK, 1, 1))
        pixel = np.arange(resolution)
        odd = ((pixel[:, None] + row) // self.cell + (pixel + column) // self.cell) % 2
        return np.rint(np.where(odd, low, high)).astype(np.uint8)
