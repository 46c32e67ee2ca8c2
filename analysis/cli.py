"""The command `gahb-analyze`: questions to finished trials. Every answer is logged to the record as a run."""

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gahb.cli import Address, Json, NoWait, RecordUri, Storage, new_app, print_json, print_table, run, say

if TYPE_CHECKING:
    from gahb.tracking.record import Record

app = new_app("Compare finished trials and draw the paper's figures from them.")

Samples = Annotated[int, typer.Option(min=2, max=100_000, help="Images drawn from each model.")]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of the sampling noise.")]
SweepName = Annotated[str, typer.Argument(metavar="SWEEP", help="A sweep in the record.")]
Force = Annotated[bool, typer.Option(help="Compare runs of different, unknown or common images too.")]
Fit = Annotated[tuple[float, float], typer.Option(help="Range of input PSNR in dB over which slopes are fitted.")]
RunName = Annotated[str, typer.Argument(help="A run id, a unique prefix of one, or a name.")]


@app.command()
def pair(
    run1: RunName,
    run2: RunName,
    samples: Samples = 64,
    seed: Seed = 0,
    force: Force = False,
    json: Json = False,
    record: RecordUri = None,
    storage: Storage = None,
) -> None:
    """Sample from two models with the same noise and compare the images (Figure 2)."""
    _run_analysis("pair", json, record, storage, run1=run1, run2=run2, samples=samples, seed=seed, force=force)


@app.command()
def pairs(
    sweep: SweepName,
    samples: Samples = 64,
    seed: Seed = 0,
    address: Address = None,
    no_wait: NoWait = False,
    json: Json = False,
    record: RecordUri = None,
    storage: Storage = None,
) -> None:
    """Compare all pairs of a sweep, trained on A and on B (Figures 2, 10, 12)."""
    _run_analysis("pairs", json, record, storage, address, no_wait, sweep=sweep, samples=samples, seed=seed)


@app.command()
def scaling(
    sweep: SweepName,
    threshold: Annotated[float, typer.Option(min=0.001, max=100, help="PSNR gap in dB that counts as closed.")] = 1.0,
    json: Json = False,
    record: RecordUri = None,
    storage: Storage = None,
) -> None:
    """Draw the PSNR gap against N and find where it closes (Figure 15)."""
    from gahb.storage.base import record_uri
    from gahb.tracking.record import Record

    _run_analysis("scaling", json, record, storage, sweep=sweep, threshold=threshold)
    _say_ui(Record(record_uri(record)), sweep)


@app.command()
def curves(
    sweep: SweepName, fit: Fit = (20, 42), json: Json = False, record: RecordUri = None, storage: Storage = None
) -> None:
    """Draw the PSNR curves and fit their slopes (Figures 1, 4, 9, 11, 16)."""
    _run_analysis("curves", json, record, storage, sweep=sweep, fit=fit)


@app.command()
def basis(
    run: RunName,
    image: Annotated[int, typer.Option(min=0, help="Row among the held-out images.")] = 0,
    images_of: Annotated[
        str | None, typer.Option(help="A trial whose held-out images are used [RUN's own; an imported model has none].")
    ] = None,
    sigma: Annotated[float, typer.Option(min=0.001, max=100, help="Standard deviation of the noise.")] = 0.15,
    top: Annotated[
        int | None,
        typer.Option(min=1, help="Compute so many eigenvalues only [all up to 40x40 pixels, 50 above]."),
    ] = None,
    json: Json = False,
    record: RecordUri = None,
    storage: Storage = None,
) -> None:
    """Find the basis in which a model shrinks a noisy image (Figures 3-5, 16-21)."""
    _run_analysis("basis", json, record, storage, run=run, image=image, images_of=images_of, sigma=sigma, top=top)


@app.command()
def trajectories(
    run1: RunName,
    run2: RunName,
    sample: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Number of the sample, as in the table of `pair`.")
    ] = 0,
    seed: Seed = 0,
    force: Force = False,
    json: Json = False,
    record: RecordUri = None,
    storage: Storage = None,
) -> None:
    """Follow two models from the same noise and find where they part (Figure 8)."""
    _run_analysis("trajectories", json, record, storage, run1=run1, run2=run2, sample=sample, seed=seed, force=force)


@app.command()
def memorization(
    sweep: SweepName,
    samples: Samples = 64,
    seed: Seed = 0,
    address: Address = None,
    no_wait: NoWait = False,
    json: Json = False,
    record: RecordUri = None,
    storage: Storage = None,
) -> None:
    """Count the samples that are training images, against N and against training time."""
    _run_analysis("memorization", json, record, storage, address, no_wait, sweep=sweep, samples=samples, seed=seed)


@app.command()
def theory(
    run: RunName, fit: Fit = (20, 42), json: Json = False, record: RecordUri = None, storage: Storage = None
) -> None:
    """Compare a model with closed-form denoisers on training and held-out images; KL bounds (eqs. 5-13)."""
    _run_analysis("theory", json, record, storage, run=run, fit=fit)


@app.command()
def transfer(
    sweeps: Annotated[list[str], typer.Argument(metavar="SWEEP…", help="Sweeps in the record.")],
    json: Json = False,
    record: RecordUri = None,
    storage: Storage = None,
) -> None:
    """Test models trained on one kind of image on the held-out images of the others."""
    _run_analysis("transfer", json, record, storage, sweeps=sweeps)


@app.command()
def report(
    sweep: SweepName,
    address: Address = None,
    no_wait: NoWait = False,
    json: Json = False,
    record: RecordUri = None,
    storage: Storage = None,
) -> None:
    """Ask all that applies to a sweep and put it on one page of HTML, beside what the paper found."""
    _run_analysis("report", json, record, storage, address, no_wait, sweep=sweep)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A checkpoint of the authors: UNet, BF_CNN, BF_CNN_RF or DnCNN.")],
    name: Annotated[str | None, typer.Option("--as", help="The run's name [the file's].")] = None,
    resolution: Annotated[
        int | None, typer.Option(min=1, help="Pixels a side to sample at [Table 1's for a UNet, else 40].")
    ] = None,
    first_relu: Annotated[
        bool, typer.Option("--first-relu", help="A BF_CNN that was trained with first_layer_linear=False.")
    ] = False,
    json: Json = False,
    record: RecordUri = None,
    storage: Storage = None,
) -> None:
    """Turn a published checkpoint into a finished run. Nothing in the file is executed."""
    from gahb.storage.base import record_uri, storage_here
    from gahb.tracking.record import Record

    from .importing import import_checkpoint

    book, root = Record(record_uri(record)), storage_here(storage)
    name = name or file.stem
    run = import_checkpoint(book, root, file, name=name, resolution=resolution, first_relu=first_relu)
    if json:
        return print_json({"run_id": run.run_id, "name": run.name, "signature": run.signature, "params": run.params})
    for key, value in {"run_id": run.run_id, "name": run.name, **run.params}.items():
        print(f"{key:<20}{value}")


def _run_analysis(
    kind: str,
    json: bool,
    record: str | None,
    storage: str | None,
    address: str | None = None,
    no_wait: bool = False,
    **arguments: Any,
) -> None:
    """Run the analysis of this kind, keep its answer, and print it."""
    from gahb.execution import ray_jobs

    ray_jobs.hand_over("gahb-analyze", address, record, storage, wait=not no_wait)
    from gahb.execution.analysis import AnalysisContext, log_result

    context = AnalysisContext.open(record, storage, address)
    result = import_module(f".{kind}", __package__).run(context, **arguments)
    run_id, folder = log_result(context, result)
    if json:
        return print_json({"run_id": run_id, **result.data, "artifacts": str(folder)})
    for rows in result.shown:
        print_table(rows)
    for line in result.lines:
        print(line)
    for stem in result.pictures:
        say(f"picture: {folder / f'{stem}.png'}")
    for name in result.texts:
        say(f"page: {folder / name}")


def _say_ui(record: "Record", sweep: str) -> None:
    if record.uri.startswith("http"):
        return say(f"runs in MLflow: {record.uri.rstrip('/')}/{record.url(sweep)}")
    mlflow = Path(sys.executable).with_name("mlflow")
    say("runs in MLflow, with the job runner that nothing here needs turned off:")
    say(f"  MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false {mlflow} ui --backend-store-uri {record.uri}")
    say(f"  and open http://127.0.0.1:5000/{record.url(sweep)}")


def main() -> None:
    """Entry point."""
    run(app, "gahb-analyze")
