"""What a denoiser does, whether it came out of the record or is any function of images: samples, PSNR, its Jacobian."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from gahb.api import notebook
from gahb.denoising.sampler import SEED, Sampler

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from torch import Tensor

    from gahb.denoising.jacobian import Spectrum
    from gahb.denoising.sampling import Samples


def sample(
    denoiser: "Callable[[Tensor], Tensor]", count: int, like: "Tensor", *, seed: int = SEED, **sampler: Any
) -> "Samples":
    """Draw images from the density that a denoiser embodies (Algorithm 1).

    Two denoisers that sample with one seed see the same noise.

    Args:
        denoiser: y ↦ f(y), (B, C, H, W) to the same, float32, on the device of `like`.
        count: number of images.
        like: images (n, C, H, W) in [0, 1], such as `load_images` gives: samples have their shape, and start from noise
            around their mean.
        seed: of the noise.
        sampler: the algorithm's constants: `h` and `growing`, the first step and whether it grows; `beta`, at 1 no
            noise is injected; `sigma_start` and `sigma_end`, the noise at which it begins and ends.

    Returns:
        `images` (count, C, H, W) float32 on the CPU; `converged` (count,), False for those that mean nothing; `steps`
        (count,).

    Raises:
        UserError: a constant out of range.

    Example:
        >>> images = gahb.load_images("16x16-N64-A")
        >>> drawn = gahb.sample(gahb.load("16x16-N64-A"), 4, images)
        >>> drawn.images.shape, drawn.converged.tolist()
        (torch.Size([4, 1, 16, 16]), [True, True, True, True])
    """
    from gahb.denoising import sampling

    return sampling.sample(
        denoiser,
        count,
        like.shape[1:],
        mean=float(like.mean()),
        seed=seed,
        device=like.device,
        sampler=Sampler(**sampler),
    )


def psnr_curve(denoiser: "Callable[[Tensor], Tensor]", images: "Tensor", count: int | None = None) -> "pd.DataFrame":
    """Output PSNR against input PSNR (Figure 1).

    Args:
        denoiser: y ↦ f(y), (B, C, H, W) to the same, float32, on the images' device.
        images: (n, C, H, W) in [0, 1].
        count: noisy images a level, so many of the images, or of each several with other noise; n if left out.

    Returns:
        a row a noise level: `sigma`, `input_psnr` and `output_psnr` in dB.

    Example:
        >>> held_out = gahb.load_images("16x16-N64-A", "held-out")
        >>> curve = gahb.psnr_curve(gahb.load("16x16-N64-A"), held_out)
        >>> len(curve), curve["input_psnr"].tolist()[:4]
        (15, [0, 3, 6, 9])
    """
    import pandas as pd

    from gahb.denoising import psnr
    from gahb.denoising.levels import INPUT_PSNR, SIGMAS

    means = psnr.mean_psnr(denoiser, images, count or len(images))
    return pd.DataFrame({"sigma": SIGMAS, "input_psnr": INPUT_PSNR, "output_psnr": means})


def spectrum(denoiser: "Callable[[Tensor], Tensor]", noisy: "Tensor", top: int | None = None) -> "Spectrum":
    """The basis in which a denoiser shrinks a noisy image: eigenvalues and eigenvectors of its Jacobian there (Figure
    3).

    Args:
        denoiser: y ↦ f(y), (B, C, H, W) to the same, float32, on the image's device, differentiable.
        noisy: y, one image (1, C, H, W).
        top: how many of the largest eigenvalues; all up to 80×80 pixels, 50 above, if left out.

    Returns:
        `values` λ_k (k,), descending; `vectors` e_k as columns (C·H·W, k); `trace`, the effective dimension; `df` with
        a row an eigenvalue.

    Example:
        >>> clean = gahb.load_images("16x16-N64-A", "held-out")[:1]
        >>> found = gahb.spectrum(gahb.load("16x16-N64-A"), clean + 0.1 * torch.randn(clean.shape))
        >>> found.vectors.shape, list(found.df.columns)
        (torch.Size([256, 256]), ['k', 'eigenvalue', 'singular_value'])
    """
    from gahb.denoising import jacobian

    return jacobian.whole_or_top(denoiser, noisy, top)


def show_images(*rows: "Tensor", labels: Sequence[str] = ()) -> "Figure":
    """Rows of images as one figure.

    Args:
        rows: equally many images each, (n, C, H, W); what lies outside [0, 1] is cut off.
        labels: one a row, or none.

    Example:
        >>> images = gahb.load_images("16x16-N64-A")[:6]
        >>> gahb.show_images(images, images + 0.2 * torch.randn(images.shape), labels=["clean", "noisy"])
        <Figure size 580x160 with 1 Axes>
    """
    from matplotlib.figure import Figure

    from gahb.figures import style

    notebook.show_figures()
    figure = Figure(figsize=(0.8 * len(rows[0]) + (1.0 if labels else 0.0), 0.8 * len(rows)), layout="constrained")
    style.show_rows(figure.subplots(), [row.detach().cpu() for row in rows], labels or [""] * len(rows))
    return figure
