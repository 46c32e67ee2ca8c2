"""What the commands of `gahb-sweep` share: their options, and what their words mean."""

from typing import Annotated, Any, NamedTuple

import typer

from gahb import completion
from gahb.denoising.levels import Gap

SweepName = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="A sweep, as `gahb-sweep list` names it, a FILE.py with its trials, or a FILE.toml with a launch.",
        autocompletion=completion.sweeps,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE[,VALUE…] …]",
        help="Settings in place of the sweep's, e.g. dataset=faces.npy n_train=1,10,100 resolution=40 images=2e6.",
        autocompletion=completion.settings,
    ),
]
SweepOrRun = Annotated[
    str,
    typer.Argument(
        metavar="SWEEP|RUN",
        help="A sweep in the record, or a run id, a prefix of one, a name, or SWEEP/NAME.",
        autocompletion=completion.sweeps_or_runs,
    ),
]
RunName = Annotated[
    str,
    typer.Argument(
        help="A run id, a unique prefix of one, a name, or SWEEP/NAME.",
        show_default=False,
        autocompletion=completion.runs,
    ),
]
RecordedSweep = Annotated[
    str, typer.Argument(help="A sweep in the record.", show_default=False, autocompletion=completion.recorded_sweeps)
]
CpusPerTrial = Annotated[float, typer.Option(min=0.01, help="CPUs a trial; it runs as many threads.")]
GpusPerTrial = Annotated[
    float | None,
    typer.Option(
        min=0, help="GPUs a trial, e.g. 0.25 [as many trials a GPU as fit and keep it busy].", show_default=False
    ),
]
Retries = Annotated[int, typer.Option(min=0, help="Restarts of a trial that has got no further since the last.")]
CheckpointSeconds = Annotated[float, typer.Option(min=0, help="Least time between a trial's checkpoints.")]
Sought = Annotated[
    float | None,
    typer.Option(
        "--gap", min=0.001, max=100, help="N* is where the PSNR gap falls below so many dB.", show_default=False
    ),
]
Average = Annotated[
    Gap | None,
    typer.Option("--average", help="With --gap: evenly over σ, or over input PSNR in dB [sigma].", show_default=False),
]
Similarity = Annotated[
    float | None,
    typer.Option(
        min=0.001,
        max=0.999,
        help="N* is where the cosine of A's and B's samples, means removed, rises so far above chance.",
        show_default=False,
    ),
]
Within = Annotated[float, typer.Option(help="How far N* is narrowed: high over low of its 95 % interval.")]
SearchName = Annotated[
    str | None,
    typer.Option(
        "--as", help="Name of the search in the record [NAME-search, or NAME-small-search].", show_default=False
    ),
]
Report = Annotated[
    bool,
    typer.Option(
        "--report",
        help="Compare each pair as soon as it is trained, with what trials leave free, and report at the end.",
    ),
]
Notify = Annotated[
    str | None,
    typer.Option(
        metavar="CMD",
        help="A command to run, with JSON on its standard input, when a trial has failed and when the sweep has ended.",
        show_default=False,
    ),
]
Small = Annotated[bool, typer.Option("--small", help="The sweep's small variant, minutes on a laptop.")]


def settings_of(name: str, overrides: list[str] | None) -> dict[str, Any]:
    """The settings that stand in place of a sweep's."""
    from gahb.grids import parse_overrides
    from gahb.planning.sweeps import find

    find(name)  # first, as its file may bring keys
    return parse_overrides(overrides or [])


class Options(NamedTuple):
    """The options that `launch` and `retry` share, with the fields of `LaunchOptions`, which is slow to import."""

    address: str | None
    cpus: float
    gpus: float | None
    retries: int
    checkpoint_seconds: float


def criterion_of(gap: float | None, average: Gap | None, similarity: float | None) -> Any:
    """What N* is."""
    from gahb.errors import UserError
    from gahb.execution.search import Criterion

    if (gap is None) == (similarity is None):
        raise UserError("say what N* is: either --gap DB or --similarity COSINE")
    if gap is None and average:
        raise UserError("--average is of the PSNR gap, and goes with --gap")
    return Criterion(gap, average or Gap.SIGMA) if gap else Criterion(similarity or 0, None)
