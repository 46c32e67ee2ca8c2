"""From what an analysis was computed from back to it: a trial's description in the MLflow UI names its analyses."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from gahb.tracking import lookup, notes, views
from gahb.tracking.client import first_line, is_retryable
from gahb.tracking.record_writer import RecordWriter
from gahb.tracking.run import BY_N, Run, asked

log = logging.getLogger(__name__)


def lead_back(
    record: RecordWriter,
    kind: str,
    run_id: str,
    sweep: str,
    runs: Sequence[Run],
    by_n: Mapping[str, Mapping[str, float]],
) -> None:
    """Have the runs that a finished analysis was computed from lead to it, and let the UI show it among the sweep's. An
    account that may not write to them leaves them as they are.

    Args:
        record: of them all.
        kind: of the analysis.
        run_id: its own.
        sweep: whose experiment it has joined.
        runs: what it was computed from.
        by_n: run id → numbers, by name, that are logged to that trial for charts against N.
    """
    try:
        (analysis,) = record.by_id([run_id])
        tag = asked(kind, analysis.experiment_id, run_id)
        for run in record.by_id({run.run_id for run in runs}):
            note = notes.of_asked(replace(run, tags={**run.tags, **tag}))
            numbers = {f"{BY_N}{key}": value for key, value in by_n.get(run.run_id, {}).items()}
            record.tag(run.run_id, {**tag, **note}, numbers, step=run.flat["n_train"] if numbers else 0)
        views.set_up_analyses(record.client, sweep, lookup.analyses(record, sweep))
    except Exception as error:  # MLflow's own
        if is_retryable(error):
            raise
        log.warning("what %s was computed from does not lead back to it: %s", run_id[:8], first_line(error))
