"""The adaptive basis of a denoiser: its Jacobian at a noisy image, and the eigenvectors of its symmetric part (§3.1).

A bias-free denoiser in evaluation mode is piecewise linear and homogeneous, so with J = ∇f(y)

    f(y) = J y = Σ_k λ_k <y, e_k> e_k    if J is symmetric:    S = (J + Jᵀ)/2 = Σ_k λ_k e_k e_kᵀ.

λ_k are the shrinkage factors, e_k the adaptive basis and tr J = Σ λ_k is the effective dimension. J of the optimal
denoiser is symmetric and has no negative λ_k, so that they are its singular values s_k as well; for a trained one
‖J - Jᵀ‖ / ‖J‖ (Frobenius) says how far it is from that, and s_k ≥ 0 differs from λ_k, which may fall below 0.

Where J is too large to hold, the top of the spectrum comes from products with J and Jᵀ alone (Lanczos), and trace and
norms from Rademacher probes z, for which E[z zᵀ] = Id (Hutchinson); with A = (J - Jᵀ)/2,

    tr J = E[zᵀ S z],    ‖S‖² = E‖S z‖²,    ‖A‖² = E‖A z‖²,    ‖J‖² = ‖S‖² + ‖A‖².

Where λ₁ … λ_k are known, they leave less to chance: tr J = Σ λ_k + E[zᵀ S z - Σ λ_k <z, e_k>²], and so for ‖S‖².
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.linalg import eigh, subspace_angles
from scipy.sparse.linalg import LinearOperator, eigsh
from threadpoolctl import threadpool_limits
from torch import Tensor

from gahb import progress
from gahb.denoising import noise
from gahb.models.linearization import linearised

if TYPE_CHECKING:
    import pandas as pd

Function = Callable[[Tensor], Tensor]
"""A denoiser in evaluation mode, (B, C, H, W) to the same, which treats each image of the batch by itself."""

TOLERANCE = 1e-3
"""Of Lanczos, relative, on the residual; the eigenvalues' error is about its square."""

WHOLE = 6400
"""Numbers in an image (pixels, times channels) up to which the whole Jacobian is computed, beyond it the top of the
spectrum: the 80×80 pixels of the paper's figures."""

TOP = 50
"""Eigenvalues computed beyond that size."""

CPU_PIXELS, GPU_PIXELS = 1 << 15, 1 << 21
"""Pixels that go through the network in one go, for each CPU thread or the GPU: activations then stay near a core's
caches, and fill a GPU."""


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues and eigenvectors of the symmetric part of a Jacobian, float64 on the CPU.

    values (k,) descending; vectors (d, k) orthonormal columns; singular_values (d,) of the Jacobian itself, descending,
    None where only the top is known; asymmetry ‖J - Jᵀ‖ / ‖J‖; trace, the effective dimension; estimated: whether these
    two are estimates from probes rather than exact.
    """

    values: Tensor
    vectors: Tensor
    singular_values: Tensor | None
    asymmetry: float
    trace: float
    estimated: bool

    @property
    def df(self) -> "pd.DataFrame":
        """A row an eigenvalue: `k`, `eigenvalue`, and where they are known `singular_value`, which belongs to other
        vectors."""
        import pandas as pd

        columns = {"eigenvalue": self.values, "singular_value": self.singular_values}
        known = {name: values.numpy() for name, values in columns.items() if values is not None}
        return pd.DataFrame({"k": range(len(self.values)), **known})


def full(denoiser: Function, y: Tensor, rows: int | None = None, dtype: torch.dtype | None = None) -> Tensor:
    """The Jacobian at a noisy image y (1, C, H, W): (d, d), entry i, j = ∂f_i / ∂y_j, of y's type.

    Args:
        rows: how many rows or columns are computed in one go; None means what suits the device.
        dtype: in which the columns of a piecewise linear network are computed; None means y's. bfloat16 is about
            twice as fast on a chip that has it and moves eigenvalues by about 1e-3 of the largest.
    """
    d = y.numel()
    rows = min(rows or batch(y), d)
    jacobian = torch.empty(d, d, dtype=y.dtype, device=y.device)
    linear = linearised(denoiser, y, dtype)
    if linear is None:
        return _by_rows(denoiser, y, rows, jacobian)
    with torch.inference_mode():
        for start in progress.track(range(0, d, rows), "Jacobian"):
            columns = linear(_units(start, rows, y).to(dtype or y.dtype))
            jacobian[:, start : start + rows] = columns.flatten(1).T
    return jacobian


def batch(y: Tensor) -> int:
    """How many images like y (1, C, H, W) go through a network in one go."""
    pixels = CPU_PIXELS * torch.get_num_threads() if y.device.type == "cpu" else GPU_PIXELS
    return max(1, pixels // y.numel())


def _by_rows(denoiser: Function, y: Tensor, rows: int, jacobian: Tensor) -> Tensor:
    """One forward pass over `rows` copies of y, then one backward pass for every `rows` rows."""
    copies = y.detach().repeat(rows, 1, 1, 1).requires_grad_()
    denoised = denoiser(copies)
    for start in progress.track(range(0, len(jacobian), rows), "Jacobian"):
        units = _units(start, rows, y)
        padded = torch.cat([units, units.new_zeros(rows - len(units), *y.shape[1:])])
        (found,) = torch.autograd.grad(denoised, copies, padded, retain_graph=True)
        jacobian[start : start + rows] = found[: len(units)].flatten(1)
    return jacobian


def _units(start: int, count: int, y: Tensor) -> Tensor:
    """The unit vectors e_start … e_{start + count - 1}, as far as there are so many, as images like y."""
    count = min(count, y.numel() - start)
    units = y.new_zeros(count, y.numel())
    units[range(count), range(start, start + count)] = 1
    return units.view(count, *y.shape[1:])


def products(denoiser: Function, y: Tensor) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """v ↦ (J v, Jᵀ v) at y (1, C, H, W), for vectors v (n, C, H, W); both of v's shape."""
    linear = linearised(denoiser, y)

    def of_linear(v: Tensor) -> tuple[Tensor, Tensor]:
        assert linear is not None
        with torch.enable_grad():
            v = v.detach().requires_grad_()
            forward = linear(v)
            (backward,) = torch.autograd.grad(forward, v, v)
        return forward.detach(), backward

    @torch.no_grad()  # none for the weights; the two products make their own
    def of_any(v: Tensor) -> tuple[Tensor, Tensor]:
        copies = y.expand_as(v).clone()
        forward = torch.func.jvp(denoiser, (copies,), (v,))[1]
        (backward,) = torch.func.vjp(denoiser, copies)[1](v)
        return forward, backward

    return of_any if linear is None else of_linear


def whole_or_top(denoiser: Function, y: Tensor, top: int | None = None) -> Spectrum:
    """The whole spectrum at y (1, C, H, W) up to WHOLE numbers, and TOP eigenvalues beyond; or as many as are asked
    for."""
    if top is None and y.numel() <= WHOLE:
        return spectrum(denoiser, y)
    return top_spectrum(denoiser, y, top or TOP)


def spectrum(denoiser: Function, y: Tensor) -> Spectrum:
    """The whole spectrum at y (1, C, H, W), from the full Jacobian."""
    return decomposed(full(denoiser, y).double().cpu())


def decomposed(jacobian: Tensor) -> Spectrum:
    """The whole spectrum of a Jacobian (d, d), float64 on the CPU."""
    symmetric = ((jacobian + jacobian.T) / 2).numpy()
    values, vectors = eigh(symmetric, driver="evr", overwrite_a=True, check_finite=False)  # faster than torch's
    return Spectrum(
        values=torch.from_numpy(values).flip(0),
        vectors=torch.from_numpy(vectors).flip(1),
        singular_values=singular_values(jacobian),
        asymmetry=asymmetry(jacobian),
        trace=float(jacobian.trace()),
        estimated=False,
    )


def singular_values(jacobian: Tensor) -> Tensor:
    """The singular values of J (d, d) float64, descending: (d,), within about 1e-8 of the largest.

    They are the roots of the eigenvalues of JᵀJ, which takes half the time of a singular value decomposition.
    """
    return torch.linalg.eigvalsh(jacobian.T @ jacobian).clamp(min=0).sqrt().flip(0)


def asymmetry(jacobian: Tensor) -> float:
    """‖J - Jᵀ‖ / ‖J‖ of J (d, d)."""
    return float((jacobian - jacobian.T).norm() / jacobian.norm())


def top_spectrum(denoiser: Function, y: Tensor, k: int) -> Spectrum:
    """The k largest eigenvalues, k < d, and their eigenvectors at y (1, C, H, W), without the Jacobian."""
    d = y.numel()
    multiply = products(denoiser, y)

    def symmetric_part(v: np.ndarray) -> np.ndarray:
        forward, backward = multiply(torch.from_numpy(v).to(y).view_as(y))
        return ((forward + backward) / 2).flatten().double().cpu().numpy()

    start = torch.randn(d, dtype=torch.float64, generator=noise.generator("lanczos")).numpy()
    operator = LinearOperator((d, d), matvec=symmetric_part, dtype=np.float64)
    with threadpool_limits(1, user_api="blas"):  # its threads would wait busily, on the cores that torch needs
        values, vectors = eigsh(operator, k, which="LA", v0=start, tol=TOLERANCE)
    order = np.argsort(-values)
    found = torch.from_numpy(values[order]), torch.from_numpy(vectors[:, order])
    trace, share = estimates(denoiser, y, found, probes=24)
    return Spectrum(*found, singular_values=None, asymmetry=share, trace=trace, estimated=True)


def estimates(
    denoiser: Function, y: Tensor, known: tuple[Tensor, Tensor] | None = None, probes: int = 64
) -> tuple[float, float]:
    """Estimates of tr J at y (1, C, H, W), unbiased, and of ‖J - Jᵀ‖ / ‖J‖, from Rademacher probes.

    Eigenvalues (k,) and eigenvectors (d, k) of S that are `known` count exactly; the probes estimate only the rest.
    """
    values, vectors = known or (torch.zeros(0).double(), torch.zeros(y.numel(), 0).double())
    draws = noise.generator("probes")
    z = torch.randint(0, 2, (probes, *y.shape[1:]), generator=draws).to(y) * 2 - 1
    multiply = products(denoiser, y)
    trace, symmetric, antisymmetric = values.sum(), values.square().sum(), torch.zeros(())
    for part in z.split(batch(y)):
        v, forward, backward = (t.flatten(1).double().cpu() for t in (part, *multiply(part)))
        shares = (v @ vectors).square()
        s, a = (forward + backward) / 2, (forward - backward) / 2
        trace = trace + ((v * s).sum() - (shares @ values).sum()) / probes
        symmetric = symmetric + (s.square().sum() - (shares @ values.square()).sum()) / probes
        antisymmetric = antisymmetric + a.square().sum() / probes
    return float(trace), float(2 * (antisymmetric / (symmetric + antisymmetric)).sqrt())


def principal_angles(a: Tensor, b: Tensor) -> Tensor:
    """The min(m, n) principal angles between the column spaces of a (d, m) and b (d, n), in radians, ascending."""
    return torch.from_numpy(subspace_angles(a.double().numpy(), b.double().numpy())[::-1].copy())


def aligned(a: Tensor, b: Tensor) -> Tensor:
    """Orthonormal vectors (d, n) of the column space of a (d, m), n ≤ m, closest to the columns of b (d, n), both of
    orthonormal columns: a U Vᵀ with the singular values aᵀ b = U Σ Vᵀ (the orthogonal Procrustes problem)."""
    u, _, v = torch.linalg.svd(a.T @ b, full_matrices=False)
    return a @ u @ v
