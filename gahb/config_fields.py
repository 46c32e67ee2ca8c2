"""What configurations have in common: whole numbers within bounds, and fields they got after their first release.

A trial that was recorded before such a field existed is the same trial now: the field is left out of the flat form, and
so of signature, params and tags, while it has its default.
"""

from dataclasses import MISSING, Field, field, fields, is_dataclass
from functools import cache
from typing import Any, cast, get_type_hints

from gahb.errors import UserError

LATER, GIVEN = "later", "given"
"""In a field's metadata: it is left out at its default; another part of the trial decides it, so it is no key."""

KINDS = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a word"}
"""The types that a key of a trial may have, in words."""

NOT_KEYS = ("dataset", "architecture", "source", "path", "name")
"""Fields that no key of a trial stands for by itself."""


def later(default: Any) -> Any:
    """A dataclass field with a default that stands for what the code did before there was the field."""
    return field(default=default, metadata={LATER: True})


def check_range(most: int, **values: int) -> None:
    """Raise UserError unless each value lies in 1 … most."""
    for key, value in values.items():
        if value < 1:
            raise UserError(f"{key}={value}: must be at least 1")
        if value > most:
            raise UserError(f"{key}={value}: must be at most {most}")


def flatten(configuration: Any) -> dict[str, Any]:
    """A dataclass's fields and values, without those that are given and later ones at their default."""
    values = {f: getattr(configuration, f.name) for f in _fields(cast(Any, type(configuration)))}
    values = {f: value for f, value in values.items() if not f.metadata.get(GIVEN)}
    return {f.name: value for f, value in values.items() if not (f.metadata.get(LATER) and value == f.default)}


@cache
def _fields(cls: Any) -> tuple[Field[Any], ...]:
    return fields(cls)


def field_types(cls: Any) -> dict[str, type]:
    """The keys of a trial that a configuration's class takes, with their types."""
    return _field_types(cls)


@cache
def _field_types(cls: type) -> dict[str, type]:
    hints = get_type_hints(cls)
    return {f.name: hints[f.name] for f in fields(cls) if not (f.name in NOT_KEYS or f.metadata.get(GIVEN))}


def check_configuration(cls: Any, base: type) -> None:
    """Raise UserError unless a class is a frozen dataclass of that base with a name, whose fields are of the types in
    KINDS and have defaults, if it does not choose them itself (`at`)."""
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise UserError(f"it must be a class derived from gahb.plugins.{base.__name__}")
    if not (is_dataclass(cls) and "__dataclass_fields__" in vars(cls) and cls.__dataclass_params__.frozen):  # type: ignore[attr-defined]
        raise UserError("it must be a frozen dataclass: @dataclass(frozen=True)")
    if not isinstance(getattr(cls, "name", None), str):
        raise UserError('it must have a class attribute name = "…"')
    if missing := sorted(getattr(cls, "__abstractmethods__", ())):
        raise UserError(f"it has no {missing[0]}(…)")
    try:
        types = field_types(cls)
    except NameError as error:
        raise UserError(f"a type of its fields is not known ({error})") from None
    for f in fields(cls):
        if f.name in types and types[f.name] not in KINDS:
            raise UserError(f"its field {f.name!r} must be bool, int, float or str")
        if f.name in types and f.default is MISSING and "at" not in vars(cls):
            raise UserError(f"its field {f.name!r} needs a default")
