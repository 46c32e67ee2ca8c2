"""What a user means by a word: a run, by its id, a prefix of it, signature, name or SWEEP/NAME, or a sweep's runs."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from gahb.errors import UserError
from gahb.grids import pair_key
from gahb.tracking.record import Record, tagged
from gahb.tracking.run import Kind, Run, Tag, link
from gahb.typed import command_line

QUOTABLE = re.compile(r"[^'\"`\\]+")
"""Texts that may stand in a filter of MLflow's."""


def find(record: Record, text: str) -> Run:
    """The trial or imported model that a user means: by run id, unique prefix of one or of a signature, name or
    SWEEP/NAME.

    Raises:
        UserError: none, or several.
    """
    for matches in _matches(record, text):
        if len(matches) == 1:
            return matches[0]
        if matches:
            ids = ", ".join(
                f"{run.run_id[:8]} ({', '.join(f'{sweep}/{run.name}' for sweep in run.sweeps)})" for run in matches[:4]
            )
            more = ", …" if len(matches) > 4 else ""
            raise UserError(f"{text!r} means {len(matches)} trials: {ids}{more}; write SWEEP/NAME, or more of a run id")
    known = command_line("gahb-sweep", "status")
    raise UserError(f"no trial {text!r} in the record {record.uri}; list them with: {known}")


def _matches(record: Record, text: str) -> Iterator[list[Run]]:
    """The trials and imported models of that id; of that signature; of that name, or SWEEP/NAME; and with such an id or
    signature."""

    def models(*conditions: str) -> list[Run]:
        found = {run.run_id: run for run in record.search(*conditions)}
        return [run for kind in (Kind.TRIAL, Kind.IMPORT) for run in found.values() if run.kind == kind]

    is_id = text.isascii() and text.isalnum()
    if is_id:
        yield models(f"attributes.run_id = '{text}'")
        yield models(tagged(Tag.SIGNATURE, text))
    if QUOTABLE.fullmatch(text):
        yield models(f"attributes.run_name = '{text}'")
    else:
        yield [run for run in record.runs(Kind.TRIAL, Kind.IMPORT) if run.name == text]
    sweep, _, name = text.partition("/")
    if name:
        yield [run for run in record.runs(Kind.TRIAL, Kind.IMPORT, sweep=sweep) if run.name == name]
    if is_id:
        yield models(f"attributes.run_id LIKE '{text}%'", f"tags.`{Tag.SIGNATURE}` LIKE '{text}%'")


def finished_model(record: Record, text: str) -> Run:
    """The trial or imported model that a user means, which must be finished.

    Raises:
        UserError: none, several, or one that has no weights yet.
    """
    run = find(record, text)
    if run.state != "finished":
        wait = f"wait for it: {command_line('gahb-sweep', 'status', '--watch', run.sweeps[0])}"
        then = wait if run.unfinished else "launch its sweep again"
        raise UserError(f"trial {run.name} ({run.run_id[:8]}) is {run.state}, not finished; {then}")
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
        raise UserError(f"no trial of sweep {sweep!r} has finished yet; see: {command_line('gahb-sweep', 'status')}")
    return finished


def pairs(runs: Sequence[Run]) -> list[tuple[Run, Run]]:
    """(A, B) of the trials that have a counterpart on the other subset among these, ordered by resolution and N."""
    halves = dict[str, dict[str, Run]]()
    for run in runs:
        flat = run.flat
        halves.setdefault(pair_key(flat), {})[flat["subset"]] = run
    found = [(half["A"], half["B"]) for half in halves.values() if len(half) == 2]
    return sorted(found, key=lambda pair: (pair[0].flat["resolution"], pair[0].flat["n_train"]))


def answer(analyses: Iterable[Run], runs: Sequence[Run], settings: Mapping[str, Any]) -> Run | None:
    """The last of the analyses that is finished and was computed from these runs, in this order, with these settings,
    if there is one."""
    links = {link(i): run.run_id for i, run in enumerate(runs)}
    wanted = {key: str(value) for key, value in settings.items()}
    found = None
    for analysis in analyses:
        of_these = links.items() <= analysis.tags.items() and len(analysis.links) == len(links)
        if analysis.state == "finished" and of_these and wanted.items() <= analysis.params.items():
            found = analysis
    return found


def analyses(record: Record, sweep: str) -> list[Run]:
    """The finished analyses of a sweep, the oldest first."""
    return [run for run in record.runs(sweep=sweep) if run.state == "finished" and run.kind not in set(Kind)]
