"""What a part of the battery looks at: checks, each a row of its table."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from benchmarks.harness import Row
from gahb import hardware
from gahb.models.activation_checkpointing import Level
from gahb.training import cost
from gahb.trial import Trial

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
COMPILE = (False, True) if ON_GPU else (False,)
"""Whether trials are compiled; a dry run compiles none."""

NETWORKS: dict[str, dict[str, Any]] = {
    "UNet 20×20": {"resolution": 20},
    "UNet 40×40": {"resolution": 40},
    "UNet 80×80": {"resolution": 80},
    "UNet 160×160": {"resolution": 160},
    "BF-CNN 40×40": {"resolution": 40, "architecture": "bf_cnn"},
}
"""Table 1's networks and BF-CNN; in a dry run the smallest of each."""
if not ON_GPU:
    NETWORKS = {name: NETWORKS[name] for name in ("UNet 20×20", "BF-CNN 40×40")}

ROOM = 0.85
"""Of a GPU's memory, what may be planned with."""

ARCHITECTURES = ("unet", "bf_cnn", "transformer")


class Skipped(Exception):
    """A check that cannot be made here. The message says why."""


@dataclass(frozen=True)
class Found:
    """What a check found, what is asked of that, and whether it is met; None where nothing is asked."""

    found: str
    asked: str = ""
    met: bool | None = None


Check = tuple[str, Callable[[], Found]]
"""What is looked at, and what looks."""

Checks = Iterator[Check]


def at_most(value: float, limit: float, unit: str = "") -> Found:
    """A number with an upper limit."""
    return Found(f"{value:.2g}{unit}", f"≤ {limit:g}{unit}", value <= limit)


def equal(digests: list[str]) -> Found:
    """Whether the same bits were found everywhere."""
    return Found(", ".join(dict.fromkeys(digests)), "the same bits", len(set(digests)) == 1)


def trial(**changes: Any) -> Trial:
    """A trial of random images, 64 of them; in a dry run of a narrow network with a small batch."""
    side = 20 if ON_GPU else 8
    flat = {"dataset": "c_alpha", "resolution": side, "n_train": 64, "n_test": 64, "batch_size": 512, **changes}
    if not ON_GPU:
        flat |= {"width": 16 if flat.get("architecture") == "transformer" else 4}
        flat |= {"layers": 5} if flat.get("architecture") == "bf_cnn" else {}
        flat |= {"batch_size": 2, "n_train": 8, "n_test": 4}
    return Trial.of({"images": flat["batch_size"] * 1000, **flat})


def fitting(trial: Trial, level: Level = "none", times: float = 1) -> Trial:
    """The trial with its batch halved until it fits so many times in the memory of the device."""
    while times * cost.memory(trial, level, on_gpu=ON_GPU) > ROOM * hardware.memory(DEVICE) and trial.batch_size > 1:
        trial = replace(trial, batch_size=trial.batch_size // 2)
    return trial


def images(trial: Trial, device: torch.device = DEVICE) -> torch.Tensor:
    """Random images for a trial, (n_train, 1, H, W) uint8."""
    side = trial.dataset.resolution
    draws = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (trial.n_train, 1, side, side), dtype=torch.uint8, generator=draws).to(device)


def compared(row: Row) -> Found:
    """A row of `benchmarks` as what a check found."""
    return Found(f"{row.ratio:.2f} × as fast as {row.baseline}; {row.detail}", row.target, row.met if ON_GPU else None)


def synchronize() -> None:
    if ON_GPU:
        torch.cuda.synchronize()
