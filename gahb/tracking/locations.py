"""Where artifacts may be: on the record's own server, or in the storage. A record says of each run where they are, and
could name any place: one that is to learn a password, or a folder that is none of the run's."""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

ON_SERVER = re.compile("mlflow-artifacts:/(?!/)")
"""How an MLflow server names a place in its own keeping."""


def expected(record_uri: str, storage_url: str) -> str:
    """In words, where artifacts may be."""
    return f"mlflow-artifacts:/… or {storage_url}/…" if record_uri.startswith("http") else f"{storage_url}/…"


def is_ours(location: str, record_uri: str, storage_url: str) -> bool:
    """Whether artifacts of a record may be at a location, beside a storage, both given as URLs."""
    if not location.isprintable() or re.search("[?#]", location) or ".." in _plain(location).split("/"):
        return False
    if record_uri.startswith("http") and ON_SERVER.match(location):
        return True
    if storage_url.startswith("file:"):
        return _in_folder(location, storage_url)
    return location.startswith(f"{storage_url}/")


def _in_folder(location: str, folder: str) -> bool:
    """Whether a file's URL leads into a folder, whatever links there are on the way."""
    parts = urlsplit(location)
    if parts.scheme != "file" or parts.netloc:
        return False
    paths = (Path(url2pathname(path)).resolve() for path in (parts.path, urlsplit(folder).path))
    return next(paths).is_relative_to(next(paths))


def _plain(location: str) -> str:
    """A location without escapes, nor escapes of escapes."""
    while (plain := unquote(location)) != location:
        location = plain
    return location
