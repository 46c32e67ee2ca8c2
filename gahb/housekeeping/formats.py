"""The formats of exported tables, which the help names without importing anything."""

from enum import StrEnum


class Format(StrEnum):
    """Of a file with a table."""

    CSV = "csv"
    PARQUET = "parquet"
