"""What may stand in a command line: sweeps, settings and their values, and what the record has."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import typer

Words = list[tuple[str, str]]
"""Each with what it means."""


def sweeps(ctx: typer.Context, incomplete: str) -> Words:
    """Those that can be launched."""
    from gahb.registry import SWEEPS

    return [(name, (sweep.__doc__ or "").strip().partition("\n")[0]) for name, sweep in SWEEPS.items()]


def datasets(ctx: typer.Context, incomplete: str) -> Words:
    return [(name, "") for name in _values("dataset", None)]


def settings(ctx: typer.Context, incomplete: str) -> Words:
    """`key=`, and once that is told from all others, or whole, `key=value`; of a list with commas the last value."""
    import gahb.trial  # noqa: F401  # whose keys come first
    from gahb.config_fields import KINDS
    from gahb.registry import KEYS

    key, equals, text = incomplete.partition("=")
    given = {word.partition("=")[0] for word in ctx.params.get("overrides") or ctx.params.get("settings") or ()}
    types = {k: type_ for k, type_ in KEYS.types().items() if k.startswith(key) and k not in given}
    if not equals and len(types) != 1:
        return [(f"{k}=", KINDS[type_]) for k, type_ in types.items()]
    if not equals:
        (key,) = types
    first, comma, _ = text.rpartition(",")
    words = [(f"{key}={first}{comma}{value}", "") for value in _values(key, ctx.params.get("name"))]
    return words if equals else [(f"{key}=", KINDS[types[key]]), *words]


def recorded_sweeps(ctx: typer.Context, incomplete: str) -> Words:
    """Those in the record."""
    return _unique((sweep, "a sweep") for run in _runs(ctx) for sweep in run.sweeps)


def runs(ctx: typer.Context, incomplete: str) -> Words:
    """Trials and imported models, by name, with the sweep where several have it, or, once that is begun, by run id."""
    found = _runs(ctx)
    count = Counter(run.name for run in found)
    names = [
        (word, f"{'/'.join(run.sweeps)}, {run.state}")
        for run in found
        for word in ([run.name] if count[run.name] == 1 else [f"{sweep}/{run.name}" for sweep in run.sweeps])
    ]
    ids = [(run.run_id, run.name) for run in found] if incomplete else []
    return _unique([*names, *ids])


def sweeps_or_runs(ctx: typer.Context, incomplete: str) -> Words:
    return [*recorded_sweeps(ctx, incomplete), *runs(ctx, incomplete)]


def _values(key: str, sweep: str | None) -> list[str]:
    """What a key may be: all of it where that is a matter of words, else what it is in a sweep."""
    from gahb.data.sources import DATASETS
    from gahb.models.architectures import ARCHITECTURES
    from gahb.planning.sweeps import trials_of
    from gahb.registry import KEYS
    from gahb.trial import CHOICES

    words = {"dataset": [*DATASETS], "architecture": [*ARCHITECTURES], **CHOICES}
    if key in words:
        return list(words[key])
    if KEYS.types().get(key) is bool:
        return ["true", "false"]
    flats = [trial.flat() for trial in trials_of(sweep)] if sweep else []
    return [f"{value:.12g}" for value in sorted({flat[key] for flat in flats if key in flat})]


def _runs(ctx: typer.Context) -> list[Any]:
    from gahb.storage.base import record_uri, storage_here
    from gahb.tracking.record import Record
    from gahb.tracking.run import Kind

    root = storage_here(ctx.params.get("storage"))
    return Record(record_uri(ctx.params.get("record")), root.url).runs(Kind.TRIAL, Kind.IMPORT)


def _unique(words: Iterable[tuple[str, str]]) -> Words:
    from gahb.text import printable

    return list({printable(word): (printable(word), printable(meaning)) for word, meaning in words}.values())
