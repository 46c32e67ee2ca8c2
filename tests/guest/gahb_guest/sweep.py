"""Checkerboards against N, for a plain network."""

from gahb.grids import grid


def trials(overrides=None):
    axes = {
        "dataset": "checkers",
        "architecture": "plain",
        "resolution": 12,
        "n_train": (1, 64),
        "subset": ("A", "B"),
        "n_test": 32,
        "images": 9600,
        "batch_size": 32,
        "learning_rate": 3e-3,
    }
    return grid(axes, overrides)
