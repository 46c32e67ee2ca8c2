"""What can be named: data sets, architectures, sweeps and analyses, gahb's own and those that guests bring.

A guest is an installed package with entry points, or one file:

    [project.entry-points."gahb.architectures"]        gahb-sweep launch ./my_sweep.py
    mixer = "my_package.networks:Mixer"                gahb-analyze my_analysis RUN --plugin my_analysis.py

Both fill the four groups below. What is imported is what the user has installed or names on the command line, and never
a word that was read from a record, a card or a file of images.
"""

import contextlib
import hashlib
import inspect
import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from gahb.config_fields import KINDS, field_types
from gahb.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

log = logging.getLogger(__name__)

Thing = TypeVar("Thing")

LARGEST_FILE = 1 << 20
"""Bytes of the largest plugin file."""


@dataclass(frozen=True)
class Origin:
    """Where something comes from: gahb, a package with its version, or a file with a hash of its content.

    Args:
        name: of the package, or of the file.
        version: of the package, or twelve hexadecimal digits of the sha256 of the file.
        source: the file's content, so that it can travel to workers.
    """

    name: str
    version: str = ""
    source: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{self.name} {self.version}".strip()

    @property
    def module(self) -> str:
        """The name under which a file's module is imported."""
        return f"gahb_plugin_{self.version}"


GAHB = Origin("gahb")

_loading: ContextVar[Origin | None] = ContextVar("_loading", default=None)
"""The file that is being loaded."""


class Group(Mapping[str, Thing], Generic[Thing]):
    """The things of one kind by name. To look for a name that is not known, or to list the names, loads what the
    installed packages bring.

    Args:
        name: the entry points' group is `gahb.<name>`.
        kind: one of them, in words.
        check: raises UserError unless something fulfils the kind's contract.
        own: the module that adds gahb's own, where what names them may not import it.
    """

    def __init__(self, name: str, kind: str, check: Callable[[Any], None], own: str | None) -> None:
        self.name, self.kind, self._check, self._own = name, kind, check, own
        self._things: dict[str, tuple[Thing, Origin]] = {}
        self._installed = False

    def add(self, name: str, thing: Thing, origin: Origin = GAHB) -> None:
        """Add something.

        Raises:
            UserError: it does not fulfil the contract, or something else has its name or one of its keys.
        """
        what = f"the {self.kind} {name!r} of {origin}"
        if name in self._things:
            raise UserError(f"{what}: {self._things[name][1]} has one of that name; rename or leave out one of them")
        try:
            self._check(thing)
            if isinstance(thing, type):
                if (own := getattr(thing, "name", name)) != name:  # trials are written with its own
                    raise UserError(f"it calls itself {own!r}; register it under that name")
                KEYS.claim(self.kind, name, field_types(thing))
        except UserError as error:
            raise UserError(f"{what}: {error}") from None
        self._things[name] = thing, origin

    def origin(self, name: str) -> Origin:
        """Where the thing of that name comes from."""
        self[name]
        return self._things[name][1]

    def guest(self, name: str) -> Origin | None:
        """Where the thing of that name comes from, if it is a guest's."""
        origin = self.origin(name) if name in self else GAHB
        return None if origin is GAHB else origin

    def known(self, name: str) -> Thing:
        """The thing of that name; UserError if there is none."""
        if name not in self:
            raise UserError(f"unknown {self.kind} {name!r}; {did_you_mean(name, self)}")
        return self[name]

    def load_installed(self) -> None:
        """Load gahb's own and what the installed packages bring to this group, once."""
        if not self._installed:
            self._installed = True
            if self._own:
                import_module(self._own)
            from importlib.metadata import entry_points  # slow to import

            for point in sorted(entry_points(group=f"gahb.{self.name}"), key=lambda point: point.name):
                self._load(point)

    def _load(self, point: "EntryPoint") -> None:
        assert point.dist is not None
        origin = Origin(point.dist.name, point.dist.version)
        try:
            thing = point.load()
        except Exception as error:  # a guest's module may raise anything
            raise UserError(
                f"the {self.kind} {point.name!r} of {origin} cannot be imported ({_said(error)}); mend or uninstall it"
            ) from None
        self.add(point.name, thing, origin)

    def __getitem__(self, name: str) -> Thing:
        if name not in self._things:
            self.load_installed()
        return self._things[name][0]

    def __iter__(self) -> Iterator[str]:
        self.load_installed()
        return iter(list(self._things))

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Keys:
    """The keys of trials: each belongs to trials, to data sets or to architectures, and has one type."""

    def __init__(self) -> None:
        self._owners: dict[str, tuple[str, str]] = {}
        self._types: dict[str, type] = {}

    def claim(self, kind: str, owner: str, types: Mapping[str, type]) -> None:
        """Take keys for one of a kind; raises UserError if a key belongs to another kind or has another type."""
        for key in types.keys() & self._types.keys():
            other, whose = self._owners[key]
            if other != kind:
                raise UserError(f"its field {key!r} is a key of {other}s already; name it otherwise")
            if self._types[key] is not types[key]:
                here, there = (KINDS.get(type_, str(type_)) for type_ in (types[key], self._types[key]))
                raise UserError(f"its field {key!r} is {here}, and that of the {other} {whose} {there}; rename it")
        for key in types.keys() - self._types.keys():
            self._owners[key], self._types[key] = (kind, owner), types[key]

    def types(self) -> Mapping[str, type]:
        """Every key with its type, guests' included."""
        for group in GROUPS.values():
            if group.kind in KINDS_WITH_KEYS:
                group.load_installed()
        return self._types


KEYS = Keys()
KINDS_WITH_KEYS = ("data set", "architecture")

GROUPS: dict[str, Group[Any]] = {}
"""datasets, architectures, sweeps and analyses; each is made where its contract stands."""


def new_group(name: str, kind: str, check: Callable[[Any], None], own: str | None = None) -> Group[Any]:
    """A group of GROUPS."""
    GROUPS[name] = Group(name, kind, check, own)
    return GROUPS[name]


def _check_sweep(sweep: Any) -> None:
    if not callable(getattr(sweep, "trials", None)):
        raise UserError("a sweep needs a function trials(overrides) that returns its trials")


def _check_analysis(run: Any) -> None:
    if not callable(run) or next(iter(inspect.signature(run).parameters), None) != "context":
        raise UserError("an analysis is a function run(context, …) that returns an AnalysisResult")


SWEEPS = new_group("sweeps", "sweep", _check_sweep, own="gahb_sweeps.catalog")
ANALYSES = new_group("analyses", "analysis", _check_analysis, own="gahb_analysis.catalog")


def plugins() -> list[dict[str, str]]:
    """A row for each thing that a guest has brought: `group`, `name`, `origin`."""
    return [
        {"group": group.name, "name": name, "origin": str(origin)}
        for group in GROUPS.values()
        for name in group
        if (origin := group.guest(name))
    ]


def require(rows: Any) -> None:
    """Raise UserError, which says how to get it, unless every guest is here that a record names in the form of
    `plugins`. One of another version will do; the log says so."""
    for row in rows:
        try:
            group, name, origin = GROUPS[row["group"]], row["name"], row["origin"]
            package, version = WHERE.fullmatch(origin).groups()  # type: ignore[union-attr]
        except (LookupError, TypeError, AttributeError):
            raise UserError("what it says of the plugins that it uses cannot be read") from None
        if name not in group:
            how = "name the file with --plugin" if package.endswith(".py") else f"pip install {package}=={version}"
            raise UserError(f"it uses the {group.kind} {name!r} of {origin}, which is not here: {how}")
        if str(group.origin(name)) != origin:
            log.warning("it uses the %s %r of %s; here is %s", group.kind, name, origin, group.origin(name))


WHERE = re.compile(r"(\w[\w.-]*) ([\w.+!-]+)")
"""The name and the version of a guest's origin."""

_files: dict[str, Origin] = {}


def files() -> list[Origin]:
    """The plugin files that were loaded."""
    return list(_files.values())


def packages() -> "dict[str, Distribution]":
    """The installed packages that bring something, by the name of each Python module that they bring it from."""
    from importlib.metadata import entry_points

    points = [point for group in GROUPS for point in entry_points(group=f"gahb.{group}")]
    return {point.module.partition(".")[0]: point.dist for point in points if point.dist}


def load_file(path: str | Path) -> Origin:
    """Load a plugin file: what it registers, its function `trials` as a sweep and its function `run` as an analysis,
    both under the file's name.

    Raises:
        UserError: no such file, one that raises or that brings nothing, or what `Group.add` refuses.
    """
    path = Path(path)
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise UserError(f"plugin {path}: larger than {LARGEST_FILE >> 20} MiB, which no module is")
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"plugin {path} cannot be read: {error}") from None
    origin = Origin(path.name, hashlib.sha256(source.encode()).hexdigest()[:12], source)
    if not WHERE.fullmatch(str(origin)):
        raise UserError(f"plugin {path}: its name may have letters, digits, dots, - and _ only; rename it")
    load_source(origin, str(path.absolute()))
    return origin


def load_source(origin: Origin, path: str | None = None) -> None:
    """Load a plugin file from its content, once; as `load_file`."""
    assert origin.source is not None
    if origin.version in _files:
        return
    before = [len(group._things) for group in GROUPS.values()]
    module = sys.modules[origin.module] = ModuleType(origin.module)
    module.__file__ = path or origin.name
    with _registering_for(origin):
        try:
            exec(compile(origin.source, module.__file__, "exec"), module.__dict__)
        except UserError:
            raise
        except (Exception, SystemExit) as error:  # a guest's file may raise anything
            raise UserError(f"plugin {module.__file__} cannot be loaded ({_said(error)}); mend it") from None
    stem = Path(origin.name).stem
    if hasattr(module, "trials"):
        SWEEPS.add(stem, module, origin)
    if hasattr(module, "run"):
        ANALYSES.add(stem, module.run, origin)
    if before == [len(group._things) for group in GROUPS.values()]:
        raise UserError(
            f"plugin {module.__file__} brings nothing: it needs a function trials(overrides) or run(context, …), or "
            "has to register something with gahb.plugins"
        )
    _files[origin.version] = origin


@contextlib.contextmanager
def _registering_for(origin: Origin) -> Iterator[None]:
    token = _loading.set(origin)
    try:
        yield
    finally:
        _loading.reset(token)


def register(group: Group[Any], name: str, thing: Any) -> None:
    """Add something that the plugin file which is being loaded brings."""
    origin = _loading.get()
    if origin is None:
        raise UserError(
            f"the {group.kind} {name!r}: only a file that --plugin or gahb.plugins.load_file loads can register; an "
            f"installed package names what it brings in its entry points, group gahb.{group.name}"
        )
    group.add(name, thing, origin)


def _said(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
