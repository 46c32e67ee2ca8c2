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
RunName = Annotated[str, typer.Argument(help="A run id, a unique prefix of one, or a name.")]


@app.command()
def pair(
    run1: RunName,
    run2: RunName,
    samples: Samples = 64,
    seed: Seed = 0,
    force: Annotated[bool, typer.Option(help="Compare runs of different, unknown or common images too.")] = False,
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
