"""What a user means by a word: a run, by its id, a prefix of it, signature or name, or the runs of a sweep."""

from gahb.errors import UserError
from gahb.tracking.record import Record
from gahb.tracking.run import Kind, Run


def find(record: Record, text: str) -> Run:
    """The trial or imported model that a user means: by run id, unique prefix of one or of a signature, or name.

    Raises:
        UserError: none, or several.
    """
    runs = record.runs(Kind.TRIAL, Kind.IMPORT)
    for matches in (
        [run for run in runs if text in (run.run_id, run.signature)],
        [run for run in runs if run.name == text],
        [run for run in runs if text and (run.run_id.startswith(text) or run.signature.startswith(text))],
    ):
        if len(matches) == 1:
            return matches[0]
        if matches:
            ids = ", ".join(f"{run.run_id[:8]} ({'/'.join(run.sweeps)} {run.name})" for run in matches[:4])
            more = ", …" if len(matches) > 4 else ""
            raise UserError(f"{text!r} means {len(matches)} trials: {ids}{more}; give more of a run id")
    raise UserError(f"no trial {text!r} in the record {record.uri}; list them with: gahb-sweep status")


def finished_model(record: Record, text: str) -> Run:
    """The trial or imported model that a user means, which must be finished.

    Raises:
        UserError: none, several, or one that has no weights yet.
    """
    run = find(record, text)
    if run.state != "finished":
        raise UserError(f"trial {run.name} ({run.run_id[:8]}) is {run.state}, not finished; launch its sweep again")
    return run


def finished_trial(record: Record, text: str) -> Run:
    """The trial that a user means, which must be finished and have images that are known.

    Raises:
        UserError: none, several, one that has no weights yet, or an imported model.
    """
    run = finished_model(record, text)
    if run.imported:
        raise UserError(f"{run.name} was imported: nothing is known of the images it was trained on")
    return run


def sweep_or_trial(record: Record, text: str) -> list[Run]:
    """The trials of a sweep, or the one trial that a user means.

    Raises:
        UserError: neither, or several.
    """
    runs = record.runs(Kind.TRIAL, sweep=text) or [find(record, text)]
    if runs[0].imported:
        raise UserError(f"{runs[0].name} was imported: there is nothing to train")
    return runs


def sweep_names(record: Record) -> list[str]:
    """The names of all sweeps in the record, sorted."""
    return sorted({sweep for run in record.runs(Kind.TRIAL) for sweep in run.sweeps})


def sweep_trials(record: Record, sweep: str) -> list[Run]:
    """The trials of a sweep, the oldest first.

    Raises:
        UserError: no such sweep.
    """
    runs = record.runs(Kind.TRIAL, sweep=sweep)
    if not runs:
        known = ", ".join(sweep_names(record)) or "none"
        raise UserError(f"no sweep {sweep!r} in the record {record.uri} (it has: {known})")
    return runs


def finished_trials(record: Record, sweep: str) -> list[Run]:
    """The finished trials of a sweep, the oldest first.

    Raises:
        UserError: no such sweep, or none finished.
    """
    finished = [run for run in sweep_trials(record, sweep) if run.state == "finished"]
    if not finished:
        raise UserError(f"no trial of sweep {sweep!r} has finished yet; see: gahb-sweep status")
    return finished


def analyses(record: Record, sweep: str) -> list[Run]:
    """The finished analyses of a sweep, the oldest first."""
    return [run for run in record.runs(sweep=sweep) if run.state == "finished" and run.kind not in set(Kind)]
