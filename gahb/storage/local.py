"""A storage in a folder; on a cluster one that all nodes share."""

import contextlib
import os
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Folder:
    """A folder with the storage's files under their names."""

    path: Path

    @property
    def uri(self) -> str:
        return str(self.path)

    @property
    def url(self) -> str:
        return self.path.as_uri()

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        with self._written(name, content) as temporary:
            temporary.replace(self.path / name)

    def create(self, name: str, content: bytes) -> bool:
        with self._written(name, content) as temporary:
            try:
                (self.path / name).hardlink_to(temporary)
            except FileExistsError:
                return False
            return True

    def names(self, folder: str) -> list[str]:
        place = self.path / folder
        if not place.is_dir():
            return []
        return sorted(file.name for file in place.iterdir() if file.is_file() and not file.name.startswith("."))

    def modified(self, name: str) -> float | None:
        with contextlib.suppress(FileNotFoundError):
            return (self.path / name).stat().st_mtime
        return None

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def local(self, name: str) -> Path:
        if not (self.path / name).exists():
            raise FileNotFoundError(name)
        return self.path / name

    def upload(self, path: Path, name: str) -> None:
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        path.replace(self.path / name)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        self.path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".making-", dir=self.path) as folder:
            yield Path(folder)

    @contextlib.contextmanager
    def _written(self, name: str, content: bytes) -> Iterator[Path]:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
        try:
            with temporary.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)
