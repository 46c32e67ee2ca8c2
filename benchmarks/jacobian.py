"""Jacobians and their spectra against one backward pass per output pixel and torch's decompositions.

Wall-clock time on all cores or a GPU; both ways keep freed memory, as analyses do. A part of each Jacobian is computed,
as the rows say, and its time taken in proportion; the top of the spectrum, of a network trained for seconds, is
computed whole. The baseline has what torch does by default, TF32 on a GPU.
"""

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.harness import Row, alternate, main, torchs_defaults
from benchmarks.models import DEVICE, convolution_rate, random, trained, waves
from gahb import hardware
from gahb.denoising import jacobian
from gahb.models.architectures import Architecture, UNet
from gahb.models.layers import Denoiser
from gahb.models.linearization import linearised
from gahb.training import cost
from gahb.training.step import make_deterministic

GPU = DEVICE.type == "cuda"
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TARGETS = {"float32": 1.3, "bfloat16": 2.5}
"""Least ratios on a CPU."""

ROUNDS = 3
TOP = 50
EIGH_SIDE = 40
"""Side of the images whose Jacobian the baseline decomposes; the time grows with the sixth power of the side."""


def noisy_image(side: int) -> Tensor:
    torch.manual_seed(1)
    return (waves(1, side) + 0.3 * torch.randn(1, 1, side, side)).to(DEVICE)


def row_by_row(denoised: Tensor, y: Tensor) -> None:
    torchs_defaults()
    for pixel in denoised.flatten()[: jacobian.batch(y)]:
        torch.autograd.grad(pixel, y, retain_graph=True)


@torch.inference_mode()
def columns(linear: torch.nn.Module | None, y: Tensor, dtype: torch.dtype) -> Tensor:
    assert linear is not None
    make_deterministic()
    units = torch.eye(jacobian.batch(y), y.numel(), dtype=dtype, device=DEVICE)
    return linear(units.view(-1, *y.shape[1:])).to(y.dtype)


def full_rows(
    denoiser: Denoiser, side: int, flops: int, precisions: Sequence[str]
) -> tuple[list[Row], dict[str, float]]:
    """The rows on the whole Jacobian, and the seconds for all of it of the baseline ("rows") and of each precision;
    `flops` are those of one image's forward pass."""
    y = noisy_image(side)
    leaf = y.clone().requires_grad_()
    denoised = denoiser(leaf)
    networks = {name: linearised(denoiser, y, TYPES[name]) for name in precisions}
    ways = {name: lambda name=name: columns(networks[name], y, TYPES[name]) for name in precisions}
    part = jacobian.batch(y)
    times = alternate({"rows": lambda: row_by_row(denoised, leaf), **ways}, rounds=ROUNDS)
    seconds = {name: t.wall / part for name, t in times.items()}
    found = []
    for name in precisions:
        target = 20 if GPU else TARGETS[name]
        ratio, rate = seconds["rows"] / seconds[name], flops / 1e9 / seconds[name]
        limit = convolution_rate(TYPES[name]) / 1e9
        detail = (
            f"{part} of {side**2} columns and rows; {side**2 * seconds[name]:.0f} s for all, {rate:.0f} GFLOP/s, "
            f"{rate / limit:.0%} of a convolution's"
        )
        if name == "bfloat16":
            error = float((ways[name]() - ways["float32"]()).norm() / ways["float32"]().norm())
            detail += f"; error {error:.1e} of the norm"
        work = f"full Jacobian, {side}×{side}, {name}"
        found.append(
            Row(work, f"row by row, {'TF32' if GPU else 'float32'}", ratio, f"≥ {target}×", ratio >= target, detail)
        )
    return found, {name: side**2 * each for name, each in seconds.items()}


def top_row(denoiser: Denoiser, side: int, baseline: float, eigh_side: int) -> Row:
    """The row on the top of the spectrum; `baseline` is the seconds that the baseline takes for the Jacobian."""
    make_deterministic()
    y = noisy_image(side)
    small = torch.randn(eigh_side**2, eigh_side**2, dtype=torch.float64)
    eigh = alternate({"eigh": lambda: torch.linalg.eigh(small + small.T)}, rounds=1)["eigh"]
    baseline += eigh.wall * (side / eigh_side) ** 6
    began = time.perf_counter()
    found = jacobian.top_spectrum(denoiser, y, TOP)
    seconds = time.perf_counter() - began
    vectors = found.vectors[:, :20].T.to(y).view(20, *y.shape[1:])
    forward, backward = jacobian.products(denoiser, y)(vectors)
    residuals = ((forward + backward) / 2).flatten(1).double().cpu() - found.values[:20, None] * found.vectors[:, :20].T
    residual = float(residuals.norm(dim=1).max())
    ratio = baseline / seconds
    return Row(
        f"top {TOP} of the spectrum, {side}×{side}",
        f"full Jacobian row by row + eigh ({jacobian.batch(y)} of {side**2} rows, eigh at {eigh_side}×{eigh_side})",
        ratio,
        "≥ 10×",
        ratio >= 10 and residual < 1e-4,
        f"{seconds:.0f} s with its estimates of trace and asymmetry, against {baseline:.0f} s; the top 20 are within "
        f"{residual:.0e}, the largest ‖S e - λ e‖",
    )


def spectra_row(denoiser: Denoiser, side: int, jacobian_seconds: float, eigh_side: int) -> Row:
    """The row on all eigenvalues, eigenvectors and singular values, at a smaller side; `jacobian_seconds` is what the
    whole Jacobian takes at `side`."""
    j = jacobian.full(denoiser, noisy_image(eigh_side)).double().cpu()

    def textbook() -> tuple[Tensor, Tensor]:
        return torch.linalg.eigh((j + j.T) / 2)[0].flip(0), torch.linalg.svdvals(j)

    times = alternate({"textbook": textbook, "ours": lambda: jacobian.decomposed(j)}, rounds=ROUNDS)
    seconds = {name: t.wall for name, t in times.items()}
    found, (values, singular) = jacobian.decomposed(j), textbook()
    assert found.singular_values is not None
    error = max(float((found.values - values).abs().max()), float((found.singular_values - singular).abs().max()))
    ratio = seconds["textbook"] / seconds["ours"]
    decomposition = seconds["ours"] * (side / eigh_side) ** 6
    return Row(
        f"both spectra of a Jacobian, {eigh_side}×{eigh_side}",
        "torch.linalg.eigh and svdvals",
        ratio,
        "≥ 1.5×",
        ratio >= 1.5 and error < 1e-7,
        f"{seconds['ours']:.1f} s against {seconds['textbook']:.1f} s, apart by {error:.0e}; at {side}×{side}, by the "
        f"sixth power of the side, {decomposition:.0f} s after {jacobian_seconds:.0f} s for the Jacobian",
    )


def rows(
    small: tuple[Architecture, int] = (UNet(2), 40),
    large: tuple[Architecture, int] = (UNet(3), 80),
    precisions: Sequence[str] = tuple(TYPES),
    eigh_side: int = EIGH_SIDE,
) -> list[Row]:
    """The rows for two networks at a side each, of which the large one is trained."""
    hardware.keep_freed_memory()
    first, _ = full_rows(random(small[0]), small[1], cost.forward_flops(*small), precisions)
    denoiser = trained(large[0])
    second, seconds = full_rows(denoiser, large[1], cost.forward_flops(*large), precisions)
    top = top_row(denoiser, large[1], seconds["rows"], eigh_side)
    return [*first, *second, top, spectra_row(denoiser, large[1], seconds["float32"], eigh_side)]


if __name__ == "__main__":
    main(rows, __doc__)
