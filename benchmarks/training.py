"""Training steps against the loop that one would write from the paper.

The textbook loop: eager float32, a DataLoader over a tensor, normalisation written plainly, Adam, `.item()` at every
step, and what torch does by default: TF32 in the convolutions of a GPU, glibc's allocator. Ours: `precision=bfloat16
compile=true` as a worker trains. Wall-clock time on all cores, or on a GPU of 50 steps between two synchronisations;
on a CPU batches of the larger images are smaller than the paper's 512, the same for both loops.
"""

import ctypes
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.harness import Row, alternate, main, matrix_rate, torchs_defaults
from gahb import hardware
from gahb.models.layers import EPSILON, MOMENTUM, BiasFreeBatchNorm, initialise
from gahb.training import compilation, cost, step
from gahb.trial import Trial

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
GPU_STEPS = 50
"""Steps between two synchronisations of a GPU."""


@dataclass(frozen=True)
class Case:
    """A kind of trial, its batch and how many steps are timed at once on a CPU, and the least ratios on CPU and GPU."""

    name: str
    flat: dict[str, object]
    batch: int
    steps: int
    target: float | None
    gpu_target: float | None = None

    @property
    def trial(self) -> Trial:
        batch = 512 if ON_GPU else self.batch
        fast = {"precision": "bfloat16", "compile": True}
        return Trial.of({"dataset": "c_alpha", "n_train": 4096, "batch_size": batch, **fast, **self.flat})


CASES = (
    Case("UNet 20×20", {"resolution": 20}, 512, 1, 3.8, 5.0),
    Case("UNet 40×40", {"resolution": 40}, 64, 1, 2.5, 4.0),
    Case("UNet 80×80", {"resolution": 80}, 16, 1, 2.5, 4.0),
    Case("BF-CNN 40×40", {"resolution": 40, "architecture": "bf_cnn"}, 32, 1, 2.5, 4.0),
    Case("UNet of width 16, 16×16", {"resolution": 16, "width": 16}, 512, 4, 3.0),
    Case("UNet of width 16, 16×16", {"resolution": 16, "width": 16}, 32, 40, None),
)


class PlainNorm(nn.Module):
    """Bias-free batch normalisation as written from its formula."""

    running_sd: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.randn(1, channels, 1, 1) * 2 / (9 * 64))
        self.register_buffer("running_sd", torch.ones(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        sd = torch.sqrt(x.var(dim=(0, 2, 3), keepdim=True, unbiased=False) + EPSILON)
        self.running_sd.mul_(1 - MOMENTUM).add_(MOMENTUM * sd.detach())
        return x / sd * self.gain


def plain(net: nn.Module) -> nn.Module:
    """The network with its normalisations written plainly."""
    for name, child in net.named_children():
        setattr(net, name, PlainNorm(child.gain.shape[1]) if isinstance(child, BiasFreeBatchNorm) else plain(child))
    return net


def textbook_steps(trial: Trial, images: Tensor) -> Callable[[], None]:
    """One step of the textbook loop."""
    net = plain(trial.architecture.build().apply(initialise)).to(DEVICE)
    optimizer = torch.optim.Adam(net.parameters(), lr=trial.learning_rate)
    loader = DataLoader(TensorDataset(images.cpu().float() / 255), batch_size=trial.batch_size, shuffle=True)
    losses = []

    def batches() -> Iterator[Tensor]:
        while True:
            for (clean,) in loader:
                yield clean.to(DEVICE)

    stream = batches()

    def one_step() -> None:
        clean = next(stream)
        sigma = torch.rand(len(clean), 1, 1, 1, device=DEVICE) ** 2
        z = sigma * torch.randn_like(clean)
        loss = ((net(clean + z) - z) ** 2).sum() / len(clean)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    return one_step


def our_steps(trial: Trial, images: Tensor) -> Callable[[], object]:
    """One step as `loop.train` takes it."""
    take, numbers = step.stepper(trial, *step.start(trial, DEVICE), images), count()
    return lambda: take(next(numbers))


def allocator(keep: bool) -> None:
    """glibc's as in a worker, or with what its defaults settle at: mapping anew every block above 32 MiB."""
    if keep:
        return hardware.keep_freed_memory()
    libc = ctypes.CDLL(None)
    libc.mallopt(hardware.M_MMAP_THRESHOLD, 32 << 20)
    libc.mallopt(hardware.M_TRIM_THRESHOLD, 64 << 20)
    libc.mallopt(hardware.M_TOP_PAD, 128 << 10)
    libc.malloc_trim(0)


def compile_seconds(trial: Trial, images: Tensor) -> tuple[float, float, float]:
    """Wall-clock seconds to the end of the first step: of the first trial of its kind on a machine, of one in another
    process (what is on the disk is found again), and of a second trial in one process."""
    torch.compiler.reset()
    seconds = []
    for seed, process in ((0, True), (1, True), (2, False)):
        if process:
            compilation.compiled.cache_clear()
            torch.compiler.reset()
        flat = {**trial.flat(), "seed": seed}
        began = time.perf_counter()
        our_steps(Trial.of(flat), images)()
        seconds.append(time.perf_counter() - began)
    return seconds[0], seconds[1], seconds[2]


def row(case: Case) -> Row:
    trial = case.trial
    generator = torch.Generator().manual_seed(0)
    side = trial.dataset.resolution
    images = torch.randint(0, 256, (4096, 1, side, side), dtype=torch.uint8, generator=generator).to(DEVICE)
    cold, warm, second = compile_seconds(trial, images)
    textbook, ours = textbook_steps(trial, images), our_steps(trial, images)

    steps = GPU_STEPS if ON_GPU else case.steps

    def run(one_step: Callable[[], object], as_a_worker: bool) -> None:
        allocator(keep=as_a_worker)
        step.make_deterministic() if as_a_worker else torchs_defaults()
        for _ in range(steps):
            one_step()

    times = alternate({"textbook": lambda: run(textbook, False), "ours": lambda: run(ours, True)})
    seconds = {name: t.wall / steps for name, t in times.items()}
    rate = {name: trial.batch_size / s for name, s in seconds.items()}
    flops = cost.TRAINING_FACTOR * cost.forward_flops(trial.architecture, side) * rate["ours"]
    limit = matrix_rate(torch.bfloat16, DEVICE)
    ratio = seconds["textbook"] / seconds["ours"]
    target = case.gpu_target if ON_GPU else case.target
    return Row(
        work=f"training, {case.name}, batch {trial.batch_size}",
        baseline=f"eager {'TF32' if ON_GPU else 'float32'} loop",
        ratio=ratio,
        target=f"≥ {target}×" if target else "",
        met=ratio >= target if target else None,
        detail=f"{rate['ours']:.0f} images/s (textbook {rate['textbook']:.0f}), {flops / 1e9:.0f} GFLOP/s, "
        f"{flops / limit:.0%} of the bf16 matrix rate; first step {cold:.0f} s compiling, {warm:.1f} s in another "
        f"process, {second:.1f} s in a second trial",
    )


def rows() -> Sequence[Row]:
    step.make_deterministic()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        return [row(case) for case in CASES]


if __name__ == "__main__":
    main(rows, __doc__ or "")
