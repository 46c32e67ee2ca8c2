"""A storage in a folder; on a cluster one that all nodes share."""

import contextlib
import errno
import io
import os
import re
import stat
import tempfile
import uuid
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from gahb.errors import UserError
from gahb.storage.entry import Entry

MAKING = re.compile(r"\.(making|fetching)-\w+|\..+-[0-9a-f]{8}")
"""What scratch folders are called, and files in the making."""


class OddFile(UserError):
    """A file is none that was written here: a link, a pipe, a device, or longer than it may be."""


def opened(path: Path, most: int | None = None, *, links: bool = False) -> io.BufferedReader:
    """A regular file, to be read: of anything else, who may write beside it could make one that never ends.

    Args:
        path: the file.
        most: bytes that it may have.
        links: whether the name may be a link; the folders on the way to it may always be.

    Raises:
        FileNotFoundError: there is none.
        OddFile: it is no regular file, or longer.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if links else os.O_NOFOLLOW))
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link, a socket
            raise OddFile(f"{path} is no regular file; remove it") from None
        raise
    about, problem = os.fstat(descriptor), ""
    if not stat.S_ISREG(about.st_mode):
        problem = "is no regular file"
    elif most is not None and about.st_size > most:
        problem = f"has more than {most} bytes"
    if problem:
        os.close(descriptor)
        raise OddFile(f"{path} {problem}; remove it")
    return os.fdopen(descriptor, "rb")


def content_of(path: Path, most: int | None = None, *, links: bool = False) -> bytes:
    """What is in a regular file, as long as it is now; see `opened`."""
    with opened(path, most, links=links) as stream:
        return stream.read(os.fstat(stream.fileno()).st_size)


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

    def read(self, name: str, most: int | None = None) -> bytes:
        return content_of(self.path / name, most)

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
        return sorted(file.name for file in place.iterdir() if not (file.is_dir() or file.name.startswith(".")))

    def files(self, folder: str = "") -> list[Entry]:
        return [entry for entry in self._walk(folder) if not entry.name.rpartition("/")[2].startswith(".")]

    def leftovers(self) -> list[Entry]:
        """All files in the making, in scratch folders or by themselves, sorted: of processes that are at it, or that
        ended before it was done."""
        return [entry for entry in self._walk(hidden=True) if any(map(MAKING.fullmatch, entry.name.split("/")))]

    def modified(self, name: str) -> float | None:
        with contextlib.suppress(FileNotFoundError):
            return (self.path / name).stat().st_mtime
        return None

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def clear(self, folder: str, names: Collection[str]) -> None:
        for place, folders, files, descriptor in os.fwalk(self.path / folder, topdown=False):
            inside = Path(place).relative_to(self.path)
            for file in files:
                if (inside / file).as_posix() in names:
                    os.unlink(file, dir_fd=descriptor)
            for below in folders:
                with contextlib.suppress(OSError):  # it is not empty
                    os.rmdir(below, dir_fd=descriptor)
        with contextlib.suppress(OSError):
            (self.path / folder).rmdir()

    def local(self, name: str) -> Path:
        opened(self.path / name).close()
        return self.path / name

    def upload(self, path: Path, name: str) -> None:
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        path.replace(self.path / name)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        self.path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".making-", dir=self.path) as folder:
            yield Path(folder)

    @property
    def workshop(self) -> "Folder":
        return self

    def _walk(self, folder: str = "", *, hidden: bool = False) -> list[Entry]:
        """The regular files in a folder and below it, with those in hidden folders if so asked."""
        found = []
        for place, folders, names in os.walk(self.path / folder):
            folders[:] = [name for name in folders if hidden or not name.startswith(".")]
            for path in (Path(place, name) for name in names):
                with contextlib.suppress(FileNotFoundError):
                    about = path.lstat()
                    if stat.S_ISREG(about.st_mode):
                        inside = path.relative_to(self.path).as_posix()
                        found.append(Entry(inside, about.st_size, about.st_mtime))
        return sorted(found)

    @contextlib.contextmanager
    def _written(self, name: str, content: bytes) -> Iterator[Path]:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
        try:
            with temporary.open("xb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)
