"""The two places that gahb writes to, and how a file appears in them: whole, or not at all.

The record is MLflow's (`MLFLOW_TRACKING_URI`); the storage is a folder for prepared data sets, checkpoints,
artifacts and launches (`GAHB_STORAGE`). Both default to the working directory: `mlflow.db` and `gahb-storage/`.
"""

import os
import uuid
from pathlib import Path

from gahb.errors import UserError


def storage_root(given: str | None = None) -> Path:
    """The storage's folder: as given, else `GAHB_STORAGE`, else `gahb-storage` in the working directory.

    Raises:
        UserError: a file is in its place.
    """
    path = Path(given or os.environ.get("GAHB_STORAGE") or "gahb-storage").expanduser().absolute()
    for place in (path, *path.parents):
        if place.exists() and not place.is_dir():
            raise UserError(f"storage {path}: {place} is no folder")
    return path


def record_uri(given: str | None = None) -> str:
    """The record's URI: as given, else `MLFLOW_TRACKING_URI`, else `mlflow.db` in the working directory."""
    return given or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path('mlflow.db').absolute()}"


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that no reader and no crash sees half-written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
