"""The command `gahb-analyze`: questions to finished trials. Every answer is logged to the record as a run."""

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gahb.commands import Json, RecordUri, Storage, new_app, print_json, print_table, run, say

if TYPE_CHECKING:
    import torch

    from gahb.record import Record

app = new_app("Compare finished trials and draw the paper's figures from them.")

Samples = Annotated[int, typer.Option(min=2, help="Images drawn from each model.")]
Seed = Annotated[int, typer.Option(min=0, help="Of the sampling noise.")]
SweepName = Annotated[str, typer.Argument(metavar="SWEEP", help="A sweep in the record.")]
Force = Annotated[bool, typer.Option(help="Compare runs of different, unknown or common images too.")]
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
    from gahb.record import Record
    from gahb.storage import record_uri, storage_root

    from . import pair as question
    from .results import keep

    book, root, device = Record(record_uri(record)), storage_root(storage), _device()
    a, b = (question.load(book, book.finished_model(text), root, device) for text in (run1, run2))
    question.check_pair(a, b, force=force)
    answer = question.compare(a, b, samples, seed, device)
    summary = answer.summary()
    _say_diverged(summary)
    run_id, folder = keep(
        book,
        root,
        kind="pair",
        name=f"{a.run.name} and {b.run.name}",
        runs=[a.run, b.run],
        settings={"samples": samples, "seed": seed},
        metrics=question.flat_metrics(summary),
        tables={"pair": answer.table},
        pictures={"pair": question.figure(answer)},
    )
    if json:
        return print_json({"run_id": run_id, **summary, "artifacts": str(folder)})
    print_table(
        [
            {"measure": key, "mean": value["mean"], "median": value["median"], **value["quantiles"]}
            for key, value in summary.items()
            if isinstance(value, dict) and not math.isnan(value["mean"])
        ]
    )
    if not math.isnan(summary["swap_gap"]):
        print(f"swap gap {summary['swap_gap']:.2f} dB")
    say(f"picture: {folder / 'pair.png'}")


@app.command()
def pairs(
    sweep: SweepName,
    samples: Samples = 64,
    seed: Seed = 0,
    json: Json = False,
    record: RecordUri = None,
    storage: Storage = None,
) -> None:
    """Compare all pairs of a sweep, trained on A and on B (Figures 2, 10, 12)."""
    import pandas as pd

    from gahb.record import Record
    from gahb.storage import record_uri, storage_root

    from . import pair as question
    from . import pairs as survey
    from .results import keep

    book, root, device = Record(record_uri(record)), storage_root(storage), _device()
    found = survey.find_pairs(book.finished_trials(sweep))
    answers = []
    for runs in found:
        a, b = (question.Model.load(book, run, root, device) for run in runs)
        question.check_pair(a, b)
        answers.append(question.compare(a, b, samples, seed, device))
        say(f"[{len(answers)}/{len(found)}] {a.run.name} and {b.run.name}")
        _say_diverged(answers[-1].summary())
    rows = [survey.row(answer) for answer in answers]
    table = pd.DataFrame(rows)
    per_sample = pd.concat([a.table.assign(pair=row["pair"]) for a, row in zip(answers, rows, strict=True)])
    run_id, folder = keep(
        book,
        root,
        kind="pairs",
        name=f"pairs of {sweep}",
        sweep=sweep,
        runs=[run for runs in found for run in runs],
        settings={"samples": samples, "seed": seed},
        metrics={},
        tables={"pairs": table, "samples": per_sample},
        pictures={"pairs": survey.figure(answers)},
    )
    if json:
        return print_json({"run_id": run_id, "pairs": rows, "artifacts": str(folder)})
    print_table(rows)
    say(f"picture: {folder / 'pairs.png'}")


@app.command()
def scaling(
    sweep: SweepName,
    threshold: Annotated[float, typer.Option(min=0.001, help="PSNR gap in dB that counts as closed.")] = 1.0,
    json: Json = False,
    record: RecordUri = None,
    storage: Storage = None,
) -> None:
    """Draw the PSNR gap against N and find where it closes (Figure 15)."""
    from gahb.record import Record
    from gahb.storage import record_uri, storage_root

    from . import scaling as question
    from .results import keep

    book, root = Record(record_uri(record)), storage_root(storage)
    runs = book.finished_trials(sweep)
    trials = question.trials_table(runs)
    table = question.scaling_table(trials)
    stars = question.crossings(table, threshold)
    rows, crossings = _records(table), _records(stars)
    run_id, folder = keep(
        book,
        root,
        kind="scaling",
        name=f"scaling of {sweep}",
        sweep=sweep,
        runs=runs,
        settings={"threshold": threshold},
        metrics={f"n_star_{star['resolution']}": star["n_star"] for star in crossings if star["n_star"]},
        tables={"scaling": table, "crossings": stars, "trials": trials},
        pictures={"scaling": question.figure(table, stars)},
    )
    if json:
        return print_json({"run_id": run_id, "scaling": rows, "crossings": crossings, "artifacts": str(folder)})
    print_table(rows)
    for star in crossings:
        where = f"at N = {star['n_star']:.0f}" if star["n_star"] else "at no N of this sweep"
        print(f"{star['curve']}: the gap falls below {threshold:g} dB {where}")
    say(f"picture: {folder / 'scaling.png'}")
    _say_ui(book, sweep)


@app.command()
def curves(
    sweep: SweepName,
    json: Json = False,
    record: RecordUri = None,
    storage: Storage = None,
) -> None:
    """Draw the PSNR curves and fit their slopes (Figures 1, 4, 9, 11, 16)."""
    from gahb.record import Record
    from gahb.storage import record_uri, storage_root

    from . import curves as question
    from .results import keep

    book, root = Record(record_uri(record)), storage_root(storage)
    runs = book.finished_trials(sweep)
    table = question.curves_table(runs, [book.artifacts(run.run_id, "psnr_curve.csv").parent for run in runs])
    slopes = question.slopes_table(table, runs)
    rows = _records(slopes)
    run_id, folder = keep(
        book,
        root,
        kind="curves",
        name=f"curves of {sweep}",
        sweep=sweep,
        runs=runs,
        settings={"slope_from_db": question.WEAK_NOISE},
        metrics={},
        tables={"curves": table, "slopes": slopes},
        pictures={"curves": question.figure(table, slopes)},
    )
    if json:
        return print_json({"run_id": run_id, "slopes": rows, "curves": _records(table), "artifacts": str(folder)})
    known = [key for key in rows[0] if any(row[key] is not None for row in rows)]
    print_table([{key: row[key] for key in known} for row in rows])
    print(f"slopes and intercepts (dB) are fitted where the input PSNR is at least {question.WEAK_NOISE} dB")
    say(f"picture: {folder / 'curves.png'}")


@app.command()
def basis(
    run: RunName,
    image: Annotated[int, typer.Option(min=0, help="Row among the held-out images.")] = 0,
    sigma: Annotated[float, typer.Option(min=0.001, help="Standard deviation of the noise.")] = 0.15,
    top: Annotated[
        int | None,
        typer.Option(min=1, help="Compute so many eigenvalues only [all up to 40x40 pixels, 50 above]."),
    ] = None,
    json: Json = False,
    record: RecordUri = None,
    storage: Storage = None,
) -> None:
    """Find the basis in which a model shrinks a noisy image (Figures 3-5, 16-21)."""
    from gahb.record import Record
    from gahb.storage import record_uri, storage_root

    from . import basis as question
    from .pair import Model
    from .results import keep

    book, root, device = Record(record_uri(record)), storage_root(storage), _device()
    model = Model.load(book, book.finished_trial(run), root, device)
    clean = question.held_out_image(model, root, image)
    answer = question.analyse(model, clean, image, sigma, top, device)
    tables = {"basis": answer.table, "dimensions": answer.dimensions}
    if answer.angles is not None:
        tables["angles"] = answer.angles
    run_id, folder = keep(
        book,
        root,
        kind="basis",
        name=f"basis of {model.run.name}",
        runs=[model.run],
        settings={"image": image, "sigma": sigma, "top": top, "estimated": answer.spectrum.estimated},
        metrics=answer.metrics(),
        tables=tables,
        pictures={"basis": question.figure(answer)},
    )
    summary = {**answer.metrics(), "estimated": answer.spectrum.estimated}
    rows = {stem: _records(table) for stem, table in tables.items()}
    if json:
        return print_json({"run_id": run_id, **summary, **rows, "artifacts": str(folder)})
    print_table(rows["basis"][:20])
    print_table(rows["dimensions"])
    estimated = " (both estimated from random probes)" if answer.spectrum.estimated else ""
    print(f"effective dimension {summary['effective_dimension']:.1f}, asymmetry {summary['asymmetry']:.3f}{estimated}")
    if answer.angles is not None:
        print("angles to the tangent space: " + ", ".join(f"{row['angle']:.1f}°" for row in rows["angles"]))
    say(f"picture: {folder / 'basis.png'}")


@app.command()
def trajectories(
    run1: RunName,
    run2: RunName,
    sample: Annotated[int, typer.Option(min=0, help="Number of the sample, as in the table of `pair`.")] = 0,
    seed: Seed = 0,
    force: Force = False,
    json: Json = False,
    record: RecordUri = None,
    storage: Storage = None,
) -> None:
    """Follow two models from the same noise and find where they part (Figure 8)."""
    from gahb.record import Record
    from gahb.storage import record_uri, storage_root

    from . import trajectories as question
    from .pair import Model, check_pair
    from .results import keep

    book, root, device = Record(record_uri(record)), storage_root(storage), _device()
    a, b = (Model.load(book, book.finished_trial(text), root, device) for text in (run1, run2))
    check_pair(a, b, force=force)
    answer = question.follow(a, b, sample, seed, device)
    if not answer.converged:
        say("a sample diverged; the last images mean nothing")
    metrics = answer.metrics()
    run_id, folder = keep(
        book,
        root,
        kind="trajectories",
        name=f"trajectories of {a.run.name} and {b.run.name}",
        runs=[a.run, b.run],
        settings={"sample": sample, "seed": seed},
        metrics=metrics,
        tables={"trajectories": answer.table},
        pictures={"trajectories": question.figure(answer)},
    )
    steps = _records(answer.table)
    if json:
        data = {"run_id": run_id, "converged": answer.converged, **metrics, "steps": steps}
        return print_json({**data, "artifacts": str(folder)})
    print_table([steps[i] for i in question.shown_steps(answer.table)])
    where = (
        f"part at step {metrics['parting_step']:.0f}, σ = {metrics['parting_sigma']:.2f}"
        if "parting_step" in metrics
        else "do not part"
    )
    print(f"the two {where}: cosine {metrics['cosine_start']:.2f} at the start, {metrics['cosine_end']:.2f} at the end")
    say(f"picture: {folder / 'trajectories.png'}")


@app.command()
def memorization(
    sweep: SweepName,
    samples: Samples = 64,
    seed: Seed = 0,
    json: Json = False,
    record: RecordUri = None,
    storage: Storage = None,
) -> None:
    """Count the samples that are training images, against N and against training time."""
    import pandas as pd

    from gahb.record import Record
    from gahb.storage import record_uri, storage_root

    from . import memorization as question
    from .results import keep

    book, root, device = Record(record_uri(record)), storage_root(storage), _device()
    runs = question.with_two_images(book.finished_trials(sweep))
    tables = []
    for trial in runs:
        tables.append(question.course_table(book, trial, root, samples, seed, device))
        say(f"[{len(tables)}/{len(runs)}] {trial.name}")
    course = pd.concat(tables, ignore_index=True)
    ends = question.times(course)
    run_id, folder = keep(
        book,
        root,
        kind="memorization",
        name=f"memorization of {sweep}",
        sweep=sweep,
        runs=runs,
        settings={"samples": samples, "seed": seed},
        metrics={},
        tables={"memorization": ends, "course": course},
        pictures={"memorization": question.figure(course, ends)},
    )
    rows = _records(ends)
    if json:
        return print_json({"run_id": run_id, "memorization": rows, "artifacts": str(folder)})
    print_table(rows)
    say(f"picture: {folder / 'memorization.png'}")


@app.command()
def report(sweep: SweepName, json: Json = False, record: RecordUri = None, storage: Storage = None) -> None:
    """Put what a sweep trained and what its analyses found on one page of HTML."""
    from gahb.record import Record
    from gahb.storage import record_uri, storage_root

    from . import report as pages
    from . import scaling as question
    from .results import keep

    book, root = Record(record_uri(record)), storage_root(storage)
    runs = book.finished_trials(sweep)
    shown = [(analysis, book.artifacts(analysis.run_id)) for analysis in pages.newest(book.analyses(sweep))]
    run_id, folder = keep(
        book,
        root,
        kind="report",
        name=f"report of {sweep}",
        sweep=sweep,
        runs=runs,
        settings={},
        metrics={},
        tables={},
        pictures={},
        texts={"report.html": pages.page(sweep, question.trials_table(runs), shown)},
    )
    if json:
        return print_json(
            {"run_id": run_id, "shown": [analysis.name for analysis, _ in shown], "artifacts": str(folder)}
        )
    print(folder / "report.html")


@app.command()
def theory(
    run: RunName,
    json: Json = False,
    record: RecordUri = None,
    storage: Storage = None,
) -> None:
    """Compare a model with closed-form denoisers on training and held-out images; KL bounds (eqs. 5-13)."""
    from gahb.data import subsets
    from gahb.data.dataset import Prepared
    from gahb.record import Record
    from gahb.storage import record_uri, storage_root

    from . import theory as question
    from .pair import Model
    from .results import keep

    book, root, device = Record(record_uri(record)), storage_root(storage), _device()
    model = Model.load(book, book.finished_trial(run), root, device)
    held_out = subsets.held_out_images(Prepared.open(root, model.card["data_hash"]), model.trial)
    table = question.theory_table(model, held_out, device)
    summary = question.summary_table(table)
    run_id, folder = keep(
        book,
        root,
        kind="theory",
        name=f"theory of {model.run.name}",
        runs=[model.run],
        settings={},
        metrics=question.metrics(summary),
        tables={"theory": table, "summary": summary},
        pictures={"theory": question.figure(table, summary, model.run.name)},
    )
    rows = _records(summary)
    if json:
        return print_json({"run_id": run_id, "denoisers": rows, "artifacts": str(folder)})
    print_table(rows)
    say(f"picture: {folder / 'theory.png'}")


@app.command()
def transfer(
    sweeps: Annotated[list[str], typer.Argument(metavar="SWEEP…", help="Sweeps in the record.")],
    json: Json = False,
    record: RecordUri = None,
    storage: Storage = None,
) -> None:
    """Test models trained on one kind of image on the held-out images of the others."""
    import pandas as pd

    from gahb.record import Record
    from gahb.storage import record_uri, storage_root

    from . import transfer as question
    from .results import keep

    book, root, device = Record(record_uri(record)), storage_root(storage), _device()
    groups = question.choose([run for sweep in dict.fromkeys(sweeps) for run in book.finished_trials(sweep)])
    tables, pictures = [], {}
    for group in groups:
        specialists = question.load(book, group, root, device)
        tables.append(question.transfer_table(specialists, device))
        pictures[f"transfer_{group[0].params['resolution']}"] = question.figure(tables[-1], specialists, device)
    table = pd.concat(tables, ignore_index=True)
    run_id, folder = keep(
        book,
        root,
        kind="transfer",
        name=f"transfer in {' and '.join(dict.fromkeys(sweeps))}",
        sweep=sweeps[0],
        runs=[run for group in groups for run in group],
        settings={},
        metrics=question.metrics(table),
        tables={"transfer": table},
        pictures=pictures,
    )
    rows = _records(table)
    if json:
        return print_json({"run_id": run_id, "transfer": rows, "artifacts": str(folder)})
    print_table(rows)
    for stem in pictures:
        say(f"picture: {folder / f'{stem}.png'}")


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
    from gahb.record import Record
    from gahb.storage import record_uri, storage_root

    from .importing import import_checkpoint

    book, root = Record(record_uri(record)), storage_root(storage)
    name = name or file.stem
    run = import_checkpoint(book, root, file, name=name, resolution=resolution, first_relu=first_relu)
    if json:
        return print_json({"run_id": run.run_id, "name": run.name, "signature": run.signature, "params": run.params})
    for key, value in {"run_id": run.run_id, "name": run.name, **run.params}.items():
        print(f"{key:<20}{value}")


def _device() -> "torch.device":
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _say_diverged(summary: dict[str, Any]) -> None:
    if summary["diverged"]:
        say(f"{summary['diverged']} of {summary['samples']} samples diverged and are left out")


def _say_ui(record: "Record", sweep: str) -> None:
    if record.uri.startswith("http"):
        return say(f"runs in MLflow: {record.uri.rstrip('/')}/{record.url(sweep)}")
    mlflow = Path(sys.executable).with_name("mlflow")
    say("runs in MLflow, with the job runner that nothing here needs turned off:")
    say(f"  MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false {mlflow} ui --backend-store-uri {record.uri}")
    say(f"  and open http://127.0.0.1:5000/{record.url(sweep)}")


def _records(table: Any) -> list[dict[str, Any]]:
    """Rows of plain values, None for NaN."""
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return [{key: value.item() if hasattr(value, "item") else value for key, value in row.items()} for row in rows]


def main() -> None:
    """Entry point."""
    run(app, "gahb-analyze")
