"""The storage: prepared data sets, checkpoints, artifacts, logs and leases, where every node of a cluster reaches them.

It is one setting (`GAHB_STORAGE`): a folder, or `s3://bucket/prefix` on AWS or whatever speaks its protocol at
`AWS_ENDPOINT_URL_S3`. Either way a file appears whole or not at all, and of several processes that create a file one
succeeds. Names are relative, with slashes.

Beside it stands the record (`MLFLOW_TRACKING_URI`). Both default to the working directory: `gahb-storage/` and
`mlflow.db`.
"""

import contextlib
import os
from collections.abc import Collection
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote

from gahb.errors import UserError
from gahb.storage.entry import Entry
from gahb.storage.local import Folder


class Storage(Protocol):
    """What a folder and a bucket have in common."""

    @property
    def uri(self) -> str:
        """The setting that leads here."""

    @property
    def url(self) -> str:
        """The same as a URL, for MLflow."""

    def read(self, name: str, most: int | None = None) -> bytes:
        """A file's content. Raises FileNotFoundError; OddFile where others have put something else in its place, or one
        of more than `most` bytes."""

    def write(self, name: str, content: bytes) -> None:
        """Put a file in place, whole or not at all. Raises OSError."""

    def create(self, name: str, content: bytes) -> bool:
        """Put a file in place unless there is one of that name; whether it was done."""

    def names(self, folder: str) -> list[str]:
        """The names of the files in a folder, sorted; none if there is no such folder."""

    def files(self, folder: str = "") -> list[Entry]:
        """All files in a folder and in the folders below it, sorted; without those that are in the making."""

    def modified(self, name: str) -> float | None:
        """When a file was put in place, in seconds since 1970; None if there is none."""

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""

    def clear(self, folder: str, names: Collection[str]) -> None:
        """Remove these files in a folder or below it, and then all of these folders that are empty. No link is
        followed, not even one that somebody puts in the way meanwhile. Nobody may be about to write there."""

    def local(self, name: str) -> Path:
        """The file on this machine, fetched once if need be. Raises FileNotFoundError and OddFile, as `read` does."""

    def upload(self, path: Path, name: str) -> None:
        """Move a file of this machine's, from `scratch`, into place."""

    def scratch(self) -> contextlib.AbstractContextManager[Path]:
        """A folder on this machine for large files in the making, removed at the end."""

    @property
    def workshop(self) -> Folder:
        """The folder on this machine where files are in the making."""


def storage_at(uri: str) -> Storage:
    """The storage that a setting means.

    Raises:
        UserError: neither a folder nor a bucket.
    """
    if uri.startswith("s3://"):
        bucket, _, prefix = uri.removeprefix("s3://").strip("/").partition("/")
        if not bucket:
            raise UserError(f"storage {uri}: give s3://BUCKET or s3://BUCKET/PREFIX")
        from gahb.storage.s3 import Bucket

        return Bucket(bucket, prefix)
    if "://" in uri:
        raise UserError(f"storage {uri}: give a folder or s3://BUCKET/PREFIX")
    path = Path(uri).expanduser().absolute()
    for place in (path, *path.parents):
        if place.exists() and not place.is_dir():
            raise UserError(f"storage {path}: {place} is no folder")
    return Folder(path)


def storage_here(given: str | None = None) -> Storage:
    """The storage: as given, else `GAHB_STORAGE`, else `gahb-storage` in the working directory."""
    return storage_at(given or os.environ.get("GAHB_STORAGE") or "gahb-storage")


def record_uri(given: str | None = None) -> str:
    """The record's URI: as given, else `MLFLOW_TRACKING_URI`, else `mlflow.db` in the working directory. A user and a
    password in that of a server move to where MLflow looks for them, this process's environment, so that no task, run
    or line has them."""
    uri = given or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path('mlflow.db').absolute()}"
    scheme, slashes, rest = uri.partition("://")
    place, slash, path = rest.partition("/")
    login, at, host = place.rpartition("@")
    if not at or scheme not in ("http", "https"):
        return uri
    user, _, password = login.partition(":")
    os.environ.update(MLFLOW_TRACKING_USERNAME=unquote(user), MLFLOW_TRACKING_PASSWORD=unquote(password))
    without = f"{scheme}{slashes}{host}{slash}{path}"
    if os.environ.get("MLFLOW_TRACKING_URI") == uri:
        os.environ["MLFLOW_TRACKING_URI"] = without
    return without
