"""How the benchmarks measure and what they print.

A program compares ways of doing one piece of work by running them in turn in one process and taking medians, so that
a machine whose speed drifts harms no ratio. `python -m benchmarks.training` runs one program and prints its rows;
`--json FILE` keeps them for `python -m benchmarks`, which writes RESULTS.md.

What counts is wall-clock time, on a GPU up to a synchronisation; both ways may use all cores where the program does not
say otherwise.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from gahb import hardware


@dataclass(frozen=True)
class Row:
    """One line of RESULTS.md.

    Args:
        work: what is done, with its size.
        baseline: the textbook way.
        ratio: time of the baseline / time of ours; for overheads what the unit says.
        target: what the ratio should be, such as "≥ 3.8×".
        met: whether it is; None for a row without target.
        detail: absolute rates, share of the limit, memory, how much of the baseline was run.
    """

    work: str
    baseline: str
    ratio: float
    target: str
    met: bool | None
    detail: str


@dataclass(frozen=True)
class Time:
    """Medians over rounds, in seconds: `cpu` of the process, all threads, and `wall`."""

    cpu: float
    wall: float


def alternate(ways: Mapping[str, Callable[[], object]], *, rounds: int = 5, warmup: int = 1) -> dict[str, Time]:
    """Run the ways in turn, `rounds` times after `warmup` uncounted turns: the medians of each."""
    seen: dict[str, list[Time]] = {name: [] for name in ways}
    for turn in range(warmup + rounds):
        for name, way in ways.items():
            cpu, wall = time.process_time(), time.perf_counter()
            way()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            taken = Time(time.process_time() - cpu, time.perf_counter() - wall)
            if turn >= warmup:
                seen[name].append(taken)
    return {
        name: Time(statistics.median(t.cpu for t in times), statistics.median(t.wall for t in times))
        for name, times in seen.items()
    }


def peak_memory() -> int:
    """The most memory that this process has held so far, in bytes."""
    return hardware.peak_memory(torch.device("cpu"))


def matrix_rate(dtype: torch.dtype, device: torch.device | str = "cpu") -> float:
    """FLOP/s of the product of two square matrices on the threads that torch has, or of ten larger ones on a GPU: the
    limit that rates are held to."""
    side, products = (8192, 10) if torch.device(device).type == "cuda" else (2048, 1)
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))

    def multiply() -> None:
        for _ in range(products):
            torch.mm(a, b)

    best = min(alternate({"products": multiply}, rounds=1).pop("products").wall for _ in range(5))
    return 2 * side**3 * products / best


def torchs_defaults() -> None:
    """Undo `step.make_deterministic`: cuDNN chooses freely, and convolutions of float32 take TF32."""
    torch.backends.cudnn.deterministic = False
    torch.backends.cudnn.allow_tf32 = True


UNITS = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 and bfloat16", "avx512f": "AVX-512", "avx2": "AVX2"}
"""Flag of a processor → what it has for products, the fastest first; not every model's name tells."""


def machine() -> str:
    """The machine in words."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cpu = f"{len(names)} × {names[0]}" if names else platform.processor() or platform.machine()
    flags = set(next((line for line in lines if line.startswith("flags")), "").split())
    units = [words for flag, words in UNITS.items() if flag in flags]
    cpu += f" with {units[0]}" if units else ""
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{cpu}{gpu}, {platform.system()}, Python {platform.python_version()}, torch {torch.__version__}"


def main(rows: Callable[[], Sequence[Row]], description: str) -> None:
    """The entry point of a program: run, print, and keep what `--json` asks for."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, help="keep the rows in this file")
    arguments = parser.parse_args()
    found = rows()
    for row in found:
        print(f"{row.work}: {row.ratio:.2f}× {row.baseline} (target {row.target or 'none'}); {row.detail}", flush=True)
    if arguments.json:
        content = {"machine": machine(), "rows": [asdict(row) for row in found]}
        arguments.json.parent.mkdir(exist_ok=True)
        arguments.json.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
