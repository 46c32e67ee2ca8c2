"""How an analysis enters the record: one run in the experiment `<sweep>-analysis`, with table, figures and links."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from gahb import figures
from gahb.record import Record, Run


def keep(
    record: Record,
    storage: Path,
    *,
    kind: str,
    name: str,
    sweep: str | None = None,
    runs: Sequence[Run],
    settings: Mapping[str, Any],
    metrics: Mapping[str, float],
    tables: Mapping[str, pd.DataFrame],
    pictures: Mapping[str, Figure],
    texts: Mapping[str, str] | None = None,
) -> tuple[str, Path]:
    """Log an analysis; returns its run id and the folder with its artifacts.

    Args:
        kind: the analysis, as the command names it.
        name: the run's name.
        sweep: whose experiment it joins; the first run's if left out.
        runs: what it was computed from; each is linked by a tag.
        settings: its params.
        metrics: its numbers.
        tables: file stem → table, kept as CSV.
        pictures: file stem → figure, kept as PNG and as SVG, for print.
        texts: file name → content.
    """
    sweep = sweep or runs[0].sweeps[0]
    links = "\n".join(f"- [{run.name}](#/experiments/{run.experiment_id}/runs/{run.run_id})" for run in runs)
    tags = {
        "gahb.kind": kind,
        f"gahb.sweep.{sweep}": "true",
        **{f"gahb.of.{i}": run.run_id for i, run in enumerate(runs)},
        "mlflow.note.content": f"{kind} of\n\n{links}",
    }
    run_id = record.create(f"{sweep}-analysis", name, storage / "artifacts", params=settings, tags=tags)
    with tempfile.TemporaryDirectory() as folder:
        for stem, table in tables.items():
            table.to_csv(Path(folder) / f"{stem}.csv", index=False)
        for stem, picture in pictures.items():
            for suffix in ("png", "svg"):
                figures.save(picture, Path(folder) / f"{stem}.{suffix}")
        for name_of_text, text in (texts or {}).items():
            (Path(folder) / name_of_text).write_text(text)
        record.add_artifacts(run_id, Path(folder))
    record.log_metrics(run_id, metrics)
    record.finish(run_id)
    return run_id, record.artifacts(run_id)
