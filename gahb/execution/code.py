"""The code that travels to a cluster's nodes, whose Python need not have any of it: gahb, and what guests have brought.

A folder with

    gahb, gahb_sweeps, gahb_analysis     the packages that run here
    <module>, <name>.dist-info           of each installed guest; the latter names what it brings
    plugins/<hash>/<file>                each plugin file

becomes the working directory of jobs and workers.
"""

import contextlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from gahb import registry

PACKAGES = ("gahb", "gahb_sweeps", "gahb_analysis")


@contextlib.contextmanager
def code() -> Iterator[Path]:
    """The folder, removed at the end."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for module in PACKAGES:
            _copy_module(module, folder)
        for module, distribution in registry.packages().items():
            _copy_module(module, folder)
            about = folder / f"{re.sub('[-.]+', '_', distribution.name)}-{distribution.version}.dist-info"
            about.mkdir(exist_ok=True)
            for file in ("METADATA", "entry_points.txt"):
                (about / file).write_text(distribution.read_text(file) or "")
        write_plugins(folder)
        yield folder


def write_plugins(folder: Path) -> list[str]:
    """Write the plugin files that were loaded into a folder; the words that load them there in another process."""
    words = list[str]()
    for origin in registry.files():
        path = folder / _place(origin)
        path.parent.mkdir(parents=True)
        path.write_text(origin.source or "", encoding="utf-8")
        words += ["--plugin", str(path)]
    return words


def at_destination(words: Sequence[str]) -> list[str]:
    """The words of a command line as a job has to read them, with the plugin files where they are in the folder."""
    return [_at_destination(word) for word in words]


def _at_destination(word: str) -> str:
    option, equals, path = word.rpartition("=")
    if path.endswith(".py") and Path(path).is_file() and option in ("", "--plugin"):
        return f"{option}{equals}{_place(registry.load_file(path))}"
    return word


def _place(origin: registry.Origin) -> str:
    return f"plugins/{origin.version}/{origin.name}"


def _copy_module(name: str, folder: Path) -> None:
    """Copy a package, or a module that is one file."""
    spec = find_spec(name)
    assert spec is not None and spec.origin is not None
    source = Path(spec.origin)
    if spec.submodule_search_locations is None:
        shutil.copy(source, folder)
    elif not (folder / name).exists():
        shutil.copytree(source.parent, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
