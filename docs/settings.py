"""The page docs/settings.md: keys with type, default and meaning, sweeps, and the options of the two commands.

Keys are the fields of the configurations' dataclasses, and their meaning is in the `Args:` of the class's docstring;
sweeps are described by their modules' docstrings, options by their help. `python -m docs` writes the page.
"""

import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

import typer.main
from gahb_analysis.cli import app as analyze
from gahb_sweeps.catalog import SWEEPS, cost, description, figures
from gahb_sweeps.cli import app as sweep

from gahb.cli import App
from gahb.config_fields import field_types
from gahb.data.dataset import Dataset
from gahb.data.image_files import ImageFiles
from gahb.data.sources import DATASETS
from gahb.help_pages import arguments_of
from gahb.models.architectures import ARCHITECTURES, Architecture
from gahb.planning.sweeps import sweep_trials
from gahb.registry import ANALYSES, Group
from gahb.trial import Trial

PAGE = Path(__file__).with_suffix(".md")

RESOLUTIONS = (20, 40, 80, 160)
"""Those of Table 1, by which an architecture may choose its defaults."""

INTRODUCTION = """\
# Settings

Written by `python -m docs` from the code.

Settings are `key=value` after a sweep's name; lists with commas make a grid, and numbers may be written `2e6`.
`dataset` and `architecture` choose a class each, whose keys join those of every trial. A sweep gives `dataset`,
`resolution` and `n_train`, and the settings on the command line stand in place of its own.
"""

DATASET_KEY = "`dataset=` is a name from below, or else a path."

FILES = (
    ("a folder, searched recursively, or a `.zip` of image files", "the largest central square"),
    (
        "the same with CelebA's aligned faces, 178×218 as distributed or at half size",
        "the paper's frame, 160×160 (80×80 at half size)",
    ),
    (
        "a folder with LSUN's `data.mdb` (`pip install 'gahb[lsun]'`), or exported images with `crop=lsun`",
        "the 256×256 at the top left",
    ),
    ("a `.npy` array (N, H, W) or (N, H, W, channels), uint8", "the largest central square"),
)
"""A path, and what is read of its images."""

PREPARATION = """\
Images become gray (mean of the channels) and are shrunk bicubically. The result is cached with a manifest that says
all this and holds hashes of source and content. Subsets A and B and a common held-out set are disjoint by construction
and nested in N. The authors test each model on images of the *other* subset; here a third, common set is held out.

`gahb-sweep data PATH resolution=80 n_train=10000` prepares a set and draws some of its images and, as Figure 6, how
close the images of A and B come to each other.
"""

IN_SWEEPS = """\
`gahb-sweep launch NAME --small` runs the small variant as sweep `NAME-small`, with the same code. In a sweep of several
architectures `architecture=` chooses one, and a key of one architecture, such as `blocks=`, applies to its own trials.
"""


def own(group: Group[Any]) -> dict[str, Any]:
    """What gahb itself brings of a group, by name."""
    return {name: thing for name, thing in group.items() if not group.guest(name)}


def configurations() -> Iterator[tuple[str, str, type]]:
    """Heading, what stands below it, and the class of each group of keys."""
    yield "## Every trial", "", Trial
    yield "## Data sets", DATASET_KEY, Dataset
    for name, source in own(DATASETS).items():
        yield f"### `dataset={name}`", summary(source), source
    files = table(("path", "what is read"), FILES)
    yield "### `dataset=PATH`", f"{summary(ImageFiles)}\n\n{files}\n\n{PREPARATION}", ImageFiles
    known = own(ARCHITECTURES)
    yield "## Architectures", f"`architecture=` is {', '.join(map(_code, known))}; `unet` where it is left out.", object
    for name, architecture in known.items():
        yield f"### `architecture={name}`", summary(architecture), architecture


def page() -> str:
    """The whole page, as Markdown."""
    parts = [INTRODUCTION]
    for heading, text, cls in configurations():
        parts += [heading, text, keys_table(cls)]
    parts += ["## Sweeps", sweeps_table(), IN_SWEEPS]
    for name, module in own(SWEEPS).items():
        parts += [f"### {name}", inspect.cleandoc(module.__doc__ or "")]
    for name, app in (("gahb-sweep", sweep), ("gahb-analyze", analyze)):
        parts += [f"## {name}", commands_table(name, app), options_table(app)]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def keys_table(cls: type) -> str:
    """The keys that a configuration's class takes; empty if there are none.

    Raises:
        KeyError: a key without a line in the class's `Args:`.
    """
    types = field_types(cls) if is_dataclass(cls) else {}
    meanings = args(cls)
    rows = [(_code(key), type_.__name__, default(cls, key), meanings[key]) for key, type_ in types.items()]
    return table(("key", "type", "default", "meaning"), rows)


def default(cls: Any, key: str) -> str:
    """The default of a key; where an architecture chooses it by the resolution, that of each of RESOLUTIONS."""
    if issubclass(cls, Architecture):
        chosen = [getattr(cls.at(resolution), key) for resolution in RESOLUTIONS]
        if len(set(chosen)) > 1:
            return f"{', '.join(map(_value, chosen))} at {', '.join(map(str, RESOLUTIONS))} pixels a side"
        return _value(chosen[0])
    (field,) = (field for field in fields(cls) if field.name == key)
    return "the sweep's" if field.default is MISSING else _value(field.default)


def args(cls: type) -> dict[str, str]:
    """The lines of the `Args:` section of a class's docstring, by their names."""
    section = re.search(r"^Args:\n((?: {4}.*\n|\n)*)", inspect.cleandoc(cls.__doc__ or "") + "\n", re.MULTILINE)
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", section[1], re.MULTILINE) if section else []
    return {name: " ".join(text.split()) for name, text in found}


def summary(cls: type) -> str:
    """The first paragraph of a class's docstring."""
    return " ".join(inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0].split())


def sweeps_table() -> str:
    """The sweeps with their figures, number of trials and cost."""
    rows = [
        (f"[{name}](#{name})", description(name), figures(name), str(len(sweep_trials(name))), cost(name))
        for name in own(SWEEPS)
    ]
    return table(("sweep", "what it shows", "reproduces", "trials", "cost"), rows)


def commands_table(name: str, app: App) -> str:
    """The commands of an application with their arguments."""
    rows = []
    for word, command in commands(app).items():
        rows.append((_code(" ".join([name, word, *arguments_of(command)])), command.help))
    return table(("command", "what it does"), rows)


def options_table(app: App) -> str:
    """The options of an application's commands; one that several commands have in the same sense has one row."""
    users: dict[tuple[str, str, str], list[str]] = {}
    known = commands(app)
    for word, command in known.items():
        for p in command.params:
            if p.param_type_name == "option":
                names = _code("/".join([*p.opts, *p.secondary_opts]))
                shown = _value(p.default) if isinstance(p.default, int | float | tuple) and not p.is_flag else ""
                users.setdefault((names, shown, p.help), []).append(word)
    rows = [
        (names, shown, meaning, "all" if len(words) == len(known) else ", ".join(words))
        for (names, shown, meaning), words in users.items()
    ]
    return table(("option", "default", "meaning", "of"), rows)


def commands(app: App) -> dict[str, Any]:
    """The commands of an application by name, without those that guests bring."""
    app.prepare()
    group: Any = typer.main.get_command(app)
    return {word: command for word, command in group.commands.items() if not ANALYSES.guest(word)}


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; empty without rows."""
    lines = [header, ["---"] * len(header), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) if rows else ""


def _code(text: str) -> str:
    return f"`{text}`"


def _value(value: Any) -> str:
    """A default as it is written on the command line."""
    if isinstance(value, tuple):
        return " ".join(map(_value, value))
    return _code(
        str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
    )
