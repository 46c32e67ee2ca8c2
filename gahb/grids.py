"""Many trials at once: grids over the values of keys, how they are written on the command line, and names that tell the
trials of a sweep apart.

    n_train=1,10,100 subset=A,B    →    six trials
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any

from gahb.config_fields import KINDS, field_types
from gahb.errors import UserError, did_you_mean
from gahb.models.architectures import ARCHITECTURES
from gahb.trial import Trial, type_of, typed

MOST_AT_ONCE = 10_000
"""Trials of a sweep."""


def grid(axes: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> list[Trial]:
    """All combinations of the axes' values, as trials without repetition; the last axis varies fastest.

    Args:
        axes: key → a value, or a list or tuple of values.
        overrides: the same, in place of the axes that have the same key.

    Raises:
        UserError: a value that is refused, or too many trials.
    """
    merged = {**axes, **(overrides or {})}
    values = [v if isinstance(v, list | tuple) else [v] for v in merged.values()]
    if math.prod(map(len, values)) > MOST_AT_ONCE:
        raise UserError(f"these are {math.prod(map(len, values))} trials; a sweep has at most {MOST_AT_ONCE}")
    return list(
        dict.fromkeys(Trial.of(dict(zip(merged, combination, strict=True))) for combination in product(*values))
    )


def union(parts: Sequence[Mapping[str, Any]], overrides: Mapping[str, Any] | None = None) -> list[Trial]:
    """The trials of several grids, each of one architecture, one grid after the other.

    Among the overrides, `architecture` chooses parts, and a key of some architectures alone, such as `blocks`,
    applies to the parts whose architecture takes it. The others apply to all.

    Args:
        parts: the axes of each grid; `architecture` is one value.
        overrides: as for `grid`.

    Raises:
        UserError: an override that applies to no part.
    """
    overrides = dict(overrides or {})
    parts = _chosen(parts, overrides)
    taken = [{key for key in overrides if _takes(part["architecture"], key)} for part in parts]
    for key in overrides:
        if not any(key in keys for keys in taken):
            raise UserError(f"{key} does not apply to {', '.join(dict.fromkeys(p['architecture'] for p in parts))}")
    trials = [
        trial
        for part, keys in zip(parts, taken, strict=True)
        for trial in grid(part, {key: overrides[key] for key in overrides if key in keys})
    ]
    return list(dict.fromkeys(trials))


def _chosen(parts: Sequence[Mapping[str, Any]], overrides: dict[str, Any]) -> list[Mapping[str, Any]]:
    """The parts that the override `architecture` leaves, which is taken out of `overrides`."""
    known = list(dict.fromkeys(part["architecture"] for part in parts))
    wanted = overrides.pop("architecture", known)
    wanted = [wanted] if isinstance(wanted, str) else list(wanted)
    for name in wanted:
        if name not in known:
            raise UserError(f"unknown architecture {name!r}; {did_you_mean(name, known)}")
    return [part for part in parts if part["architecture"] in wanted]


def _takes(architecture: str, key: str) -> bool:
    """Whether trials of the architecture may have the key: one of its own, or of no architecture's."""
    owners = [name for name, cls in ARCHITECTURES.items() if key in field_types(cls)]
    return not owners or architecture in owners


def parse_overrides(words: Sequence[str]) -> dict[str, list[Any]]:
    """`["n_train=1,10", "images=2e6"]` → `{"n_train": [1, 10], "images": [2000000]}`.

    Raises:
        UserError: a word that is no key=value, an unknown or repeated key, or a value of the wrong type.
    """
    overrides: dict[str, list[Any]] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not text:
            raise UserError(f"{word!r} is not of the form key=value")
        if key in overrides:
            raise UserError(f"{key} is given twice; write {key}=first,second")
        kind = type_of(key)
        overrides[key] = [_parse(key, kind, value) for value in text.split(",")]
    return overrides


def typed_overrides(settings: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Overrides as they are written in Python: key → a value, or several in whatever holds some.

        {"n_train": range(1, 3), "images": 2e6}    →    {"n_train": [1, 2], "images": [2000000]}

    Raises:
        UserError: an unknown key.
    """
    return {
        key: [typed(key, v) for v in ([value] if isinstance(value, str) or not isinstance(value, Iterable) else value)]
        for key, value in settings.items()
    }


ALWAYS_NAMED = ("resolution", "n_train", "subset")


def differing(trials: Iterable[Trial]) -> list[str]:
    """The fewest keys, in the order of a flat trial, that tell trials apart which resolution, N and subset do not."""
    flats = [trial.flat() for trial in trials]
    varying = [key for key in dict.fromkeys(key for flat in flats for key in flat) if _count(flats, [key]) > 1]
    chosen = list(ALWAYS_NAMED)
    told_apart = _count(flats, chosen)
    for key in varying:
        if (with_key := _count(flats, [*chosen, key])) > told_apart:
            chosen.append(key)
            told_apart = with_key
    return chosen[len(ALWAYS_NAMED) :]


def readable_name(trial: Trial, keys: Iterable[str]) -> str:
    """A name of resolution, N, subset and those of `keys` that the trial has: "20x20-N100-A", "16x16-N4-B-seed1".
    A switch stands in it by its own name where it is on: "80x80-N100-A-shuffled"."""
    return _name(trial, ["subset", *keys])


def pair_name(trial: Trial, keys: Iterable[str]) -> str:
    """The same without the subset, for a trial and its counterpart on the other one: "16x16-N4-seed1"."""
    return _name(trial, keys)


def curve_names(trials: Sequence[Trial]) -> list[str]:
    """The curve that each of the trials lies on: its resolution, with the keys in which the trials differ, but for N,
    subset and seed."""
    keys = [key for key in differing(trials) if key != "seed"]
    flats = [trial.flat() for trial in trials]
    return [
        " ".join([f"{flat['resolution']}×{flat['resolution']}", *(f"{key}={flat[key]}" for key in keys if key in flat)])
        for flat in flats
    ]


def pair_key(flat: Mapping[str, Any]) -> str:
    """What a flat trial has in common with its counterpart on the other subset, and with no other trial."""
    return json.dumps({key: value for key, value in flat.items() if key != "subset"}, sort_keys=True)


def _name(trial: Trial, keys: Iterable[str]) -> str:
    flat = {**trial.flat(), "dataset": trial.dataset.name}
    rest = [_named(key, flat[key]) for key in keys if flat.get(key, False) is not False]
    return "-".join([f"{flat['resolution']}x{flat['resolution']}", f"N{flat['n_train']}", *rest])


def _named(key: str, value: Any) -> str:
    return key if value is True else value if isinstance(value, str) else f"{key}{value}"


def _count(flats: Iterable[Mapping[str, Any]], keys: Sequence[str]) -> int:
    return len({tuple(repr(flat.get(key)) for key in keys) for flat in flats})


def _parse(key: str, kind: type, text: str) -> Any:
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        if kind is int:
            number = float(text)
            if not number.is_integer():
                raise ValueError
            return int(text) if text.lstrip("-").isdigit() else int(number)
        if kind is float:
            number = float(text)
            if not math.isfinite(number):
                raise ValueError
            return number
        return text
    except (ValueError, KeyError, OverflowError):
        raise UserError(f"{key}={text}: must be {KINDS[kind]}") from None
