"""A file as a storage lists it."""

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Entry:
    """A file's name in the storage, its bytes, and when it was put in place, in seconds since 1970."""

    name: str
    bytes: int
    modified: float
