"""From the record into docs/results: the newest answers, and what each sweep cost beside what was planned."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from gahb.config_fields import flatten
from gahb.planning.calibration import device_seconds
from gahb.storage.base import record_uri, storage_here
from gahb.tracking import lookup
from gahb.tracking.record import Record
from gahb.tracking.run import Kind, Run, Tag
from gahb.training.cost import parameters

from .campaign import Kept, Part

FOLDER = Path(__file__).parents[1] / "docs" / "results"
"""Where tables and pictures are kept."""

IDS = ("run_id", "curve_id", "run_a", "run_b")
"""Columns that name runs of one record, and say nothing elsewhere."""


def gather(part: Part) -> list[str]:
    """Bring what a part keeps; returns what the record does not have yet."""
    record = Record(record_uri(None), storage_here(None).url)
    missing = [kept.folder for kept in part.kept if not _bring(record, kept)]
    for sweep in part.sweeps:
        if trials := record.runs(Kind.TRIAL, sweep=sweep):
            _write(pd.DataFrame([_cost(run) for run in trials]), FOLDER / sweep / "trials.csv")
    return missing


def _bring(record: Record, kept: Kept) -> bool:
    analyses = [
        run
        for run in lookup.analyses(record, kept.sweep)
        if run.kind == kept.kind and run.state == "finished" and kept.about in run.name
    ]
    if not analyses:
        return False
    folder, found = FOLDER / kept.folder, record.artifacts(analyses[-1].run_id)
    for table in kept.tables:
        if not (file := found / f"{table}.csv").exists():  # an analysis leaves out what is empty
            (folder / f"{table}.csv").unlink(missing_ok=True)
            continue
        frame = pd.read_csv(file)
        _write(frame.drop(columns=[key for key in IDS if key in frame]), folder / f"{table}.csv")
    for picture in kept.pictures:
        shutil.copy(found / f"{picture}.png", folder)
    return True


def _write(table: pd.DataFrame, file: Path) -> None:
    """Write a table; of a data set's path the name of the file is left."""
    file.parent.mkdir(parents=True, exist_ok=True)
    table.replace(r"/\S*/([^/\s]+)\.npy", r"\1", regex=True).to_csv(file, index=False, float_format="%.6g")


def _cost(run: Run) -> dict[str, Any]:
    """A trial's data, network and length, PSNRs in dB, and seconds of its device, planned and measured."""
    trial, architecture = run.trial, run.trial.architecture
    return {
        "name": run.name,
        "state": run.state,
        "data": trial.dataset.name,
        **{key: run.flat[key] for key in ("resolution", "n_train", "subset", "seed")},
        "network": " ".join([architecture.name, *(f"{key}={value}" for key, value in flatten(architecture).items())]),
        "parameters": parameters(architecture, trial.dataset.resolution),
        "receptive_field": architecture.receptive_field(),
        "images": run.flat["images"],
        "images_seen": run.images_seen,
        "images_reused": run.images_reused,
        **run.psnrs,
        "planned_seconds": run.tags.get(Tag.PLANNED_SECONDS),
        "seconds": device_seconds(run),
        "device": run.tags.get(Tag.DEVICE),
    }
