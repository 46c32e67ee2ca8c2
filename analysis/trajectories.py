"""Where do the ways of two models part that start from the same noise? (Figure 8, appendix B.2.1)

Both sample with common starting and injected noise (Algorithm 1). On the way, at each step t, the noisy image x_t is
denoised in one shot; compared are the two denoised images, by their cosine with means removed. The ways part where it
falls below 0.9 of what it was at the start for good. A model that has arrived keeps its last image while the other
goes on.
"""

from dataclasses import asdict, dataclass
from itertools import zip_longest

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from gahb.cli import say
from gahb.data.similarity import cosine
from gahb.denoising.sampler import Sampler
from gahb.denoising.sampling import sample as draw
from gahb.execution.analysis import AnalysisContext, AnalysisResult, rows_of
from gahb.figures import style
from gahb.tracking import lookup

from .models import Model, load
from .pair import check_pair, common_mean

PARTED = 0.9
"""The share of the cosine at the start below which two ways have parted."""

SHOWN = 10
"""Steps in the picture, evenly spaced in log σ."""


def run(
    context: AnalysisContext, *, run1: str, run2: str, sample: int, seed: int, sampler: Sampler, force: bool
) -> AnalysisResult:
    """The result of `gahb-analyze trajectories`.

    Args:
        run1, run2: what names the two runs.
        sample: its number.
        seed: of the sampling noise.
        sampler: the constants of the sampling.
        force: compare even models that `check_pair` refuses.
    """
    a, b = (load(context, lookup.finished_model(context.record, text)) for text in (run1, run2))
    check_pair(a, b, force=force)
    ways = follow(a, b, sample, seed, context.device, sampler)
    if not ways.converged:
        say("a sample diverged; the last images mean nothing")
    metrics, steps = ways.metrics(), rows_of(ways.table)
    where = (
        f"part at step {metrics['parting_step']:.0f}, σ = {metrics['parting_sigma']:.2f}"
        if "parting_step" in metrics
        else "do not part"
    )
    ends = f"cosine {metrics['cosine_start']:.2f} at the start, {metrics['cosine_end']:.2f} at the end"
    return AnalysisResult(
        name=f"trajectories of {a.name} and {b.name}",
        runs=[a.run, b.run],
        settings={"sample": sample, "seed": seed, **asdict(sampler)},
        metrics=metrics,
        tables={"trajectories": ways.table},
        pictures={"trajectories": figure(ways)},
        data={"converged": ways.converged, **metrics, "steps": steps},
        shown=[[steps[i] for i in shown_steps(ways.table)]],
        lines=[f"the two {where}: {ends}"],
    )


@dataclass(frozen=True)
class Trajectories:
    """The ways of two models. `table` has a row a step: `step`, `sigma_a`, `sigma_b`, `cosine_centered`; denoised_a
    and denoised_b (steps, 1, H, W) are the denoised images; converged says whether both have arrived."""

    a: Model
    b: Model
    table: pd.DataFrame
    denoised_a: Tensor
    denoised_b: Tensor
    converged: bool

    def metrics(self) -> dict[str, float]:
        """The cosine at the start and at the end, and where the ways part, if they do."""
        cosines = self.table["cosine_centered"]
        ends = {"cosine_start": float(cosines.iloc[0]), "cosine_end": float(cosines.iloc[-1])}
        parting = where_they_part(self.table)
        if parting is None:
            return ends
        return {**ends, "parting_step": float(parting["step"]), "parting_sigma": float(parting["sigma_a"])}


def follow(
    a: Model, b: Model, number: int, seed: int, device: torch.device, sampler: Sampler | None = None
) -> Trajectories:
    """Sample the image of a number with both models, with the noise it has in `pair`, and keep the way.

    Args:
        number: which of the samples that belong to the seed.
        seed: of the sampling noise.
        sampler: the constants of the sampling.
    """
    paths: list[list[tuple[float, Tensor]]] = [[], []]
    converged = True
    for model, path in zip((a, b), paths, strict=True):

        def observe(
            step: int, numbers: Tensor, sigma: Tensor, denoised: Tensor, path: list[tuple[float, Tensor]] = path
        ) -> None:
            path.append((float(sigma[0]), denoised[0].cpu()))

        drawn = draw(
            model.denoiser,
            1,
            model.shape,
            mean=common_mean(a, b),
            seed=seed,
            first=number,
            device=device,
            sampler=sampler,
            observe=observe,
        )
        converged = converged and bool(drawn.converged.all())
    together = [(step_a or paths[0][-1], step_b or paths[1][-1]) for step_a, step_b in zip_longest(*paths)]
    denoised_a, denoised_b = (torch.stack([step[i][1] for step in together]) for i in range(2))
    table = pd.DataFrame(
        {
            "step": range(1, len(together) + 1),
            "sigma_a": [step[0][0] for step in together],
            "sigma_b": [step[1][0] for step in together],
            "cosine_centered": cosine(denoised_a, denoised_b, centred=True).numpy(),
        }
    )
    return Trajectories(a, b, table, denoised_a, denoised_b, converged)


def where_they_part(table: pd.DataFrame) -> pd.Series | None:
    """The first row from which on the cosine stays below PARTED of its start; None if it does not at the end."""
    together = table["cosine_centered"] >= PARTED * table["cosine_centered"].iloc[0]
    last = int(np.flatnonzero(together)[-1]) if together.any() else -1
    return table.iloc[last + 1] if last + 1 < len(table) else None


def shown_steps(table: pd.DataFrame) -> list[int]:
    """Rows at about SHOWN levels evenly spaced in log σ of the first model, from the first to the last."""
    levels = np.log(table["sigma_a"].to_numpy())
    wanted = np.linspace(levels[0], levels[-1], SHOWN)
    nearest = [int(np.abs(levels - level).argmin()) for level in wanted]
    return sorted({0, *nearest[1:-1], len(table) - 1})


def figure(ways: Trajectories) -> Figure:
    """Figure 8: the denoised images of both models on the way, and their cosine at each step."""
    steps = shown_steps(ways.table)
    shown = ways.table.iloc[steps]
    picture = Figure(figsize=(1.4 + 0.85 * len(steps), 4.6), layout="constrained")
    top, bottom = picture.subplots(2, 1, height_ratios=(1.9, 2.4))
    names = [model.name for model in (ways.a, ways.b)]
    style.show_rows(top, [ways.denoised_a[steps], ways.denoised_b[steps]], names)
    side = ways.denoised_a.shape[-1] + 1
    labels = [f"step {step}\nσ = {sigma:.2f}" for step, sigma in zip(shown["step"], shown["sigma_a"], strict=True)]
    top.set_xticks([1 + side * (i + 0.5) for i in range(len(steps))], labels, fontsize=8)
    bottom.plot(ways.table["step"], ways.table["cosine_centered"], color=style.COLOURS[0])
    bottom.plot(shown["step"], shown["cosine_centered"], "o", color=style.COLOURS[0], markersize=4)
    parting = where_they_part(ways.table)
    if parting is not None:
        label = f"they part at step {parting['step']:.0f}, σ = {parting['sigma_a']:.2f}"
        bottom.axvline(parting["step"], color=style.COLOURS[1], linestyle="--", label=label)
        bottom.legend(frameon=False, fontsize=8)
    bottom.set_ylim(min(0, ways.table["cosine_centered"].min() - 0.02), 1.02)
    bottom.set_xlabel("step")
    bottom.set_ylabel("cosine similarity\n(means removed)")
    bottom.grid(alpha=0.3)
    return picture
