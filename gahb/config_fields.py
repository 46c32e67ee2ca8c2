"""What configurations have in common: whole numbers within bounds, and fields they got after their first release.

A trial that was recorded before such a field existed is the same trial now: the field is left out of the flat form, and
so of signature, params and tags, while it has its default.
"""

from dataclasses import field, fields
from typing import Any

from gahb.errors import UserError

LATER = "later"


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
    """A dataclass's fields and values, without later ones at their default."""
    values = {f: getattr(configuration, f.name) for f in fields(configuration)}
    return {f.name: value for f, value in values.items() if not (f.metadata.get(LATER) and value == f.default)}
