"""The analyses by name: what each asks and may be told, how its picture reads, what the paper found, and when a report
asks it.

A function here is the analysis as the command line and a report know it, and quick to import; its work stands in the
module of the same name. Guests register such functions too (`gahb.plugins`).
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any, cast

import typer

from gahb import completion
from gahb.cli import parameter
from gahb.denoising.levels import Gap
from gahb.denoising.sampler import SAMPLES, SEED, Sampler
from gahb.errors import UserError
from gahb.execution.analysis import AnalysisContext, AnalysisResult, AnalysisRun, Question, described
from gahb.registry import ANALYSES
from gahb.tracking.run import Run

Samples = Annotated[int, typer.Option(min=2, max=100_000, help="Images drawn from each model.")]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of the sampling noise.")]
SweepName = Annotated[
    str, typer.Argument(metavar="SWEEP", help="A sweep in the record.", autocompletion=completion.recorded_sweeps)
]
RunName = Annotated[
    str, typer.Argument(help="A run id, a unique prefix of one, a name, or SWEEP/NAME.", autocompletion=completion.runs)
]
Force = Annotated[bool, typer.Option(help="Compare runs of different, unknown or common images too.")]
Threshold = Annotated[float, typer.Option(min=0.001, max=100, help="PSNR gap in dB that counts as closed.")]
WhichGap = Annotated[Gap, typer.Option(help="Average it evenly over σ, or over input PSNR in dB.")]
Fit = Annotated[tuple[float, float], typer.Option(help="Range of input PSNR in dB over which slopes are fitted.")]


def _option(name: str, kind: type, text: str, *flags: str) -> inspect.Parameter:
    return parameter(name, Annotated[kind, typer.Option(*flags, help=text)], getattr(Sampler, name))


PAIRS, SCALING, INSIDE = "Pairs and samples", "Curves and scaling", "Inside a denoiser"
"""The panels of the help."""

WEAK_NOISE = (20.0, 34.0)
"""Where slopes are fitted by default, in dB."""

CONSTANTS = [
    _option("h", float, "Step h of the sampling, above 0 and up to 1; the first if it grows."),
    _option("growing", bool, "Whether that step grows.", "--growing/--fixed"),
    _option("beta", float, "β, above 0 and up to 1; at 1 no noise is injected, below it some is."),
    _option("sigma_start", float, "σ₀, the noise at which sampling begins."),
    _option("sigma_end", float, "σ_∞, the noise at which it ends."),
]
"""The sampler's, each an option."""


def sampled(analyse: AnalysisRun) -> AnalysisRun:
    """The analysis with CONSTANTS as its options in the place of its `sampler`."""

    @functools.wraps(analyse)
    def run(context: AnalysisContext, **options: Any) -> AnalysisResult:
        chosen = {p.name: options.pop(p.name) for p in CONSTANTS if p.name in options}
        return analyse(context, **options, sampler=Sampler(**chosen))

    own = [p for p in inspect.signature(analyse).parameters.values() if p.name != "sampler"]
    run.__signature__ = inspect.Signature([*own, *CONSTANTS])  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in (*own, *CONSTANTS)}
    return cast(AnalysisRun, run)


def _of_sweep(sweep: str, runs: Sequence[Run]) -> list[Question]:
    return [Question({"sweep": sweep}, runs)]


def _of_pairs(sweep: str, runs: Sequence[Run]) -> list[Question]:
    from gahb.tracking import lookup

    both = [run for pair in lookup.pairs(runs) for run in pair]
    return [Question({"sweep": sweep}, both)] if both else []


def _of_several_sizes(sweep: str, runs: Sequence[Run]) -> list[Question]:
    return [Question({"sweep": sweep}, runs)] if _several_sizes(runs) else []


def _of_two_images(sweep: str, runs: Sequence[Run]) -> list[Question]:
    from .memorization import with_two_images

    return [Question({"sweep": sweep}, _or_none(with_two_images, runs))] if _several_sizes(runs) else []


def _of_the_largest(sweep: str, runs: Sequence[Run]) -> list[Question]:
    """One trial a curve, that of the largest N."""
    return [Question({"runs": [run.run_id]}, [run]) for run in _largest(runs, ignored=("n_train", "subset", "seed"))]


def _of_a_largest(sweep: str, runs: Sequence[Run]) -> list[Question]:
    """The same, for an analysis of one run."""
    return [Question({"run": run.run_id}, q.runs) for q in _of_the_largest(sweep, runs) for run in q.runs]


def _of_each_data_set(sweep: str, runs: Sequence[Run]) -> list[Question]:
    """One trial a data set and resolution, that of the largest N."""
    of_images = {key for run in runs for key in run.trial.dataset.flat()}
    other_keys = [key for run in runs for key in run.flat if key not in of_images]
    return [Question({"run": run.run_id}, [run]) for run in _largest(runs, ignored=other_keys)]


def _of_the_ends(sweep: str, runs: Sequence[Run]) -> list[Question]:
    """The pairs of the least and of the largest N."""
    from gahb.tracking import lookup

    found = lookup.pairs(runs)
    return [Question({"run1": a.run_id, "run2": b.run_id}, [a, b]) for a, b in found[:1] + found[1:][-1:]]


def _of_several_data_sets(sweep: str, runs: Sequence[Run]) -> list[Question]:
    from .transfer import choose

    chosen = [run for group in _or_none(choose, runs) for run in group]
    return [Question({"sweeps": [sweep]}, chosen)] if chosen else []


@described(
    "Output PSNR against input PSNR",
    reading="Each curve is one training-set size. Where train lies above test, the network remembers its images; the "
    "dotted identity is a denoiser that does nothing; dashed is the slope of the optimum where it is known. The "
    "reference is the slope of the oracle in the best bandlet basis at this size in this range.",
    paper="Figures 1, 9, 11: at N = 1 and 10 train has unit slope and test is poor at every noise level; at N = 10⁵ "
    "both coincide. Figure 4: slopes 0.46, 0.61, 0.75, 0.83 for α = 1, 2, 3, 5, where α/(α+1) is optimal.",
    asks=_of_sweep,
    panel=SCALING,
    examples=(
        "gahb-analyze curves demo",
        "gahb-analyze curves c_alpha_slopes --fit 18 30",
    ),
)
def curves(context: AnalysisContext, sweep: SweepName, fit: Fit = WEAK_NOISE) -> AnalysisResult:
    """Draw the PSNR curves and fit their slopes (Figures 1, 4, 9, 11, 16)."""
    from . import curves

    return curves.run(context, sweep=sweep, fit=fit)


@described(
    "Two models, one noise",
    reading="Above, samples of the models trained on A and on B from the same noise, each beside the closest image of "
    "its training set; below, the cosine of the two samples (blue) and of a sample and its closest image (orange). "
    "Excess is what the first has beyond samples from different noise.",
    paper="Figures 2, 10, 12: as N grows the blue histogram moves to 1 and the orange one away from it; they cross "
    "between N = 10³ and 10⁴.",
    asks=_of_pairs,
    on_cluster=True,
    panel=PAIRS,
    examples=(
        "gahb-analyze pairs demo",
        "gahb-analyze pairs demo --samples 200 --address http://head:8265",
    ),
)
@sampled
def pairs(
    context: AnalysisContext,
    sweep: SweepName,
    samples: Samples = SAMPLES,
    seed: Seed = SEED,
    *,
    sampler: Sampler,
) -> AnalysisResult:
    """Compare all pairs of a sweep, trained on A and on B (Figures 2, 10, 12)."""
    from . import pairs

    return pairs.run(context, sweep=sweep, samples=samples, seed=seed, sampler=sampler)


@described(
    "Originality",
    reading="Above, samples of A, the closest patches of its training images in their place, and the closest whole "
    "images. Below left, how close the training images come (solid) and as many that the model has not seen (dotted); "
    "right, the difference, from which chance is gone, and the share of a sample's patches that come from one image.",
    paper="Figure 10: at N = 100 samples are combinations of patches of training images.",
    asks=_of_pairs,
    by_default=False,
    on_cluster=True,
    panel=PAIRS,
    examples=("gahb-analyze originality demo --patch 5",),
)
@sampled
def originality(
    context: AnalysisContext,
    sweep: SweepName,
    samples: Samples = SAMPLES,
    seed: Seed = SEED,
    patch: Annotated[
        int | None, typer.Option(min=2, help="Pixels a side of a patch [a quarter of the image's, at least 3].")
    ] = None,
    searched: Annotated[
        int, typer.Option(min=1, help="Training images whose patches are searched at every position.")
    ] = 1000,
    *,
    sampler: Sampler,
) -> AnalysisResult:
    """Hold the patches of samples against those of training images, over N (Figure 10)."""
    from . import originality

    return originality.run(context, sweep=sweep, settings=originality.Settings(samples, seed, patch, searched, sampler))


@described(
    "PSNR gap against N",
    reading="Train minus held-out PSNR averaged over noise levels, evenly in σ or in decibels (--gap), a curve for "
    "each resolution; bars span subsets and seeds, upward alone where the least gap is not positive; dotted lines mark "
    "N*, where the gap falls below the threshold.",
    paper="Figure 15: the gap falls with N at every resolution; larger images need more N, but the step from 80×80 to "
    "160×160 costs much less than that from 40×40 to 80×80.",
    asks=_of_several_sizes,
    panel=SCALING,
    examples=(
        "gahb-analyze scaling demo",
        "gahb-analyze scaling resolution_scaling --threshold 0.5 --gap db",
    ),
)
def scaling(
    context: AnalysisContext,
    sweep: SweepName,
    threshold: Threshold = 1.0,
    gap: WhichGap = Gap.SIGMA,
) -> AnalysisResult:
    """Draw the PSNR gap against N and find where it closes (Figure 15)."""
    from . import scaling

    return scaling.run(context, sweep=sweep, threshold=threshold, gap=Gap(gap))


@described(
    "Phase diagram",
    reading="The PSNR gap over N and images seen, a row for each curve, with N*, where it closes, and predictions "
    "(diamonds); the similarity of A's and B's samples and the fraction of them that are training images; when a trial "
    "generalises and when it memorises; and the gap against images/N^q, with the q that brings all N together best.",
    paper="The paper trains every N equally long. Bonnaire et al. (2025): models generalise after a time that does not "
    "depend on N, and memorise after one that is proportional to N.",
    asks=_of_sweep,
    by_default=False,
    on_cluster=True,
    panel=SCALING,
    examples=("gahb-analyze phase demo --predict 131072",),
)
@sampled
def phase(
    context: AnalysisContext,
    sweep: SweepName,
    threshold: Threshold = 1.0,
    gap: WhichGap = Gap.SIGMA,
    window: Annotated[
        tuple[float, float], typer.Option(help="Gaps in dB, from and to, of the cells to which laws are fitted.")
    ] = (0.1, 6.0),
    predict: Annotated[
        list[float] | None,
        typer.Option(metavar="IMAGES", help="Predict N* after so many images, not reached yet; may be repeated."),
    ] = None,
    samples: Annotated[
        int, typer.Option(min=0, max=100_000, help="Images drawn from each model at each evaluation; 0 draws none.")
    ] = 16,
    seed: Seed = 0,
    *,
    sampler: Sampler,
) -> AnalysisResult:
    """Draw the PSNR gap over N and training time, fit the law of where it closes, and predict it (Bonnaire et al.)."""
    from . import phase

    return phase.run(
        context,
        sweep=sweep,
        threshold=threshold,
        gap=Gap(gap),
        window=window,
        predict=predict or (),
        samples=samples,
        seed=seed,
        sampler=sampler,
    )


@described(
    "Memorised samples",
    reading="The fraction of samples at most a third as far from their closest training image as from the next, at the "
    "end of training against N, with 95 % binomial intervals over the samples, and against images seen.",
    paper="Figure 2 shows copies up to N = 100, distorted copies at N = 1000 and none at 10⁵.",
    asks=_of_two_images,
    on_cluster=True,
    panel=PAIRS,
    examples=("gahb-analyze memorization demo",),
)
@sampled
def memorization(
    context: AnalysisContext,
    sweep: SweepName,
    samples: Samples = SAMPLES,
    seed: Seed = SEED,
    *,
    sampler: Sampler,
) -> AnalysisResult:
    """Count the samples that are training images, against N and against training time."""
    from . import memorization

    return memorization.run(context, sweep=sweep, samples=samples, seed=seed, sampler=sampler)


@described(
    "Shrinkage factors and adaptive basis",
    reading="Eigenvalues λ and eigenvectors of the denoiser's Jacobian at one noisy image, and the image's "
    "coefficients in that basis. Where the images are a manifold, a basis of the tangent space stands above.",
    paper="Figure 3: the largest λ lie a little above 1 and decay slowly, vectors oscillate along contours and in "
    "smooth regions. Figure 5 (disks): about five λ near 1, then a fall to 0.67, 0.55, 0.39. Figure 21: on shuffled "
    "images λ decays more slowly, and the vectors, with the pixels back in place, are noisier.",
    asks=_of_the_largest,
    panel=INSIDE,
    examples=(
        "gahb-analyze basis 16x16-N1024-A",
        "gahb-analyze basis 16x16-N1024-A 16x16-N4-A --sigma 0.3 --vectors 0:40:4",
    ),
)
def basis(
    context: AnalysisContext,
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN…",
            help="Run ids, unique prefixes of them, names, or SWEEP/NAME.",
            autocompletion=completion.runs,
        ),
    ],
    image: Annotated[int, typer.Option(min=0, help="Row among the held-out images.")] = 0,
    images_of: Annotated[
        str | None, typer.Option(help="A trial whose held-out images are used [RUN's own; an imported model has none].")
    ] = None,
    sigma: Annotated[float, typer.Option(min=0.001, max=100, help="Standard deviation of the noise.")] = 0.15,
    top: Annotated[
        int | None,
        typer.Option(min=1, help="Compute so many eigenvalues only [all up to 80x80 pixels, 50 above]."),
    ] = None,
    vectors: Annotated[
        str, typer.Option(help="Which eigenvectors are shown: 0,3,7 or FIRST:LAST or FIRST:LAST:STEP.")
    ] = "0:19",
) -> AnalysisResult:
    """Find the basis in which a model shrinks a noisy image (Figures 3-5, 16-21)."""
    from . import basis

    return basis.run(context, runs=runs, image=image, images_of=images_of, sigma=sigma, top=top, vectors=vectors)


@described(
    "Dimensions that are kept",
    reading="Means over held-out images against σ, with 95 % bootstrap intervals: how many dimensions the denoiser "
    "keeps, how far its Jacobian is from symmetric and positive; on a manifold, how much of the noise that it lets "
    "through comes from outside the tangent space, and the share of low frequencies in the vectors that do so.",
    paper="Section 3.2: on a manifold of dimension m the optimum keeps m dimensions; networks keep more as the noise "
    "becomes weaker, along harmonics.",
    asks=_of_a_largest,
    by_default=False,
    on_cluster=True,
    panel=INSIDE,
    examples=("gahb-analyze dimension 16x16-N1024-A --images 64",),
)
def dimension(
    context: AnalysisContext,
    run: RunName,
    images: Annotated[int, typer.Option(min=1, max=10_000, help="Held-out images, the first so many.")] = 16,
) -> AnalysisResult:
    """Measure the dimensions that a model keeps, over images and noise levels (section 3.2)."""
    from . import dimension

    return dimension.run(context, run=run, images=images)


@described(
    "Where sampling paths part",
    reading="The denoised image on the way from noise to sample, in both models.",
    paper="Figure 8: paths that end in different images part near their middle.",
    asks=_of_the_ends,
    panel=PAIRS,
    examples=("gahb-analyze trajectories 16x16-N4-A 16x16-N4-B --sample 3",),
)
@sampled
def trajectories(
    context: AnalysisContext,
    run1: RunName,
    run2: RunName,
    sample: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Number of the sample, as in the table of `pair`.")
    ] = 0,
    seed: Seed = SEED,
    *,
    sampler: Sampler,
    force: Force = False,
) -> AnalysisResult:
    """Follow two models from the same noise and find where they part (Figure 8)."""
    from . import trajectories

    return trajectories.run(context, run1=run1, run2=run2, sample=sample, seed=seed, sampler=sampler, force=force)


@described(
    "Beside analytic denoisers",
    reading="The trained denoiser among those that need no training, and their excess over the best of them, "
    "integrated over the grid of noise levels, which is no bound; in the second picture, how few terms stand for an "
    "image in the network's own basis and in others.",
    paper="Section 2.1 and eq. 5: the gap to the true optimum, integrated over all noise levels, bounds the error of "
    "the density. Section 3.2: in the best bandlet basis squared coefficients of C^α images decay as k^-(α+1).",
    asks=_of_each_data_set,
    panel=INSIDE,
    examples=("gahb-analyze theory 16x16-N1024-A",),
)
def theory(context: AnalysisContext, run: RunName, fit: Fit = WEAK_NOISE) -> AnalysisResult:
    """Compare a model with denoisers that need no training, and its basis with bandlets (eqs. 5-13, 28-33)."""
    from . import theory

    return theory.run(context, run=run, fit=fit)


@described(
    "Models on other kinds of image",
    reading="Each row is a model, each column the held-out images of one kind; numbers are PSNR and what is lost "
    "against the kind's own model.",
    paper="The paper poses this as a question: how far the inductive bias alone carries to images never seen.",
    asks=_of_several_data_sets,
    panel=INSIDE,
    examples=(
        "gahb-analyze transfer demo disks",
        "gahb-analyze transfer architecture",
    ),
)
def transfer(
    context: AnalysisContext,
    sweeps: Annotated[
        list[str],
        typer.Argument(metavar="SWEEP…", help="Sweeps in the record.", autocompletion=completion.recorded_sweeps),
    ],
) -> AnalysisResult:
    """Test models trained on one kind of image on the held-out images of the others."""
    from . import transfer

    return transfer.run(context, sweeps=sweeps)


@described(
    "A single pair",
    reading="As above, for two chosen models.",
    paper="Figure 14: at N = 20,000 on 32×32 rooms, BF-CNN, the cosine of pairs is close to 1.",
    panel=PAIRS,
    examples=("gahb-analyze pair 16x16-N64-A 16x16-N64-B --samples 50",),
)
@sampled
def pair(
    context: AnalysisContext,
    run1: RunName,
    run2: RunName,
    samples: Samples = SAMPLES,
    seed: Seed = SEED,
    *,
    sampler: Sampler,
    force: Force = False,
) -> AnalysisResult:
    """Sample from two models with the same noise and compare the images (Figure 2)."""
    from . import pair

    return pair.run(context, run1=run1, run2=run2, samples=samples, seed=seed, sampler=sampler, force=force)


@described("Report", on_cluster=True, panel="Reports and imports", examples=("gahb-analyze report demo",))
def report(context: AnalysisContext, sweep: SweepName) -> AnalysisResult:
    """Ask all that applies to a sweep and put it on one page of HTML, beside what the paper found."""
    from . import report

    return report.run(context, sweep=sweep)


for _run in (
    curves,
    pairs,
    originality,
    scaling,
    phase,
    memorization,
    basis,
    dimension,
    trajectories,
    theory,
    transfer,
    pair,
    report,
):
    ANALYSES.add(_run.__name__, _run)


def _several_sizes(runs: Sequence[Run]) -> bool:
    return len({run.flat["n_train"] for run in runs}) > 1


def _largest(runs: Sequence[Run], ignored: Sequence[str]) -> list[Run]:
    """Of the trials that differ in nothing but the ignored keys, the first of the largest N."""
    chosen: dict[str, Run] = {}
    for run in runs:
        rest = repr({key: value for key, value in run.flat.items() if key not in ignored})
        if run.flat["n_train"] > chosen.setdefault(rest, run).flat["n_train"]:
            chosen[rest] = run
    return list(chosen.values())


def _or_none(choose: Callable[[Sequence[Run]], Any], runs: Sequence[Run]) -> Any:
    """What an analysis chooses among runs, nothing if it finds none that will do."""
    try:
        return choose(runs)
    except UserError:
        return []
