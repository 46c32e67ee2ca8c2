"""What stands in the place of programs where documented commands are run: they do what the programs do, on less.

    python -m tests.smaller PROGRAM WORD …

`gahb-sweep` sees fewer images, in narrower networks; what the documents have under /data is where DATA says, and
/shared is in the home. `make` takes the installed Python for .venv. `ray stop` ends the nodes that were started with
the same MARK, and not, as Ray's does, those of everybody on the machine.
"""

import contextlib
import math
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DATA, MARK = "DOCUMENTS_DATA", "DOCUMENTS_MARK"
"""Variables: the folder with images, and what tells the processes of a page from others."""

LESS = {"images": lambda images: 64 * round(2 * math.log2(images)), "n_train": lambda n: 1000, "n_test": lambda n: 16}
"""Key → the largest value that is used for one; of two values the larger stays the larger or becomes equal."""

MISSING = {
    "demo": {"images": "640", "width": "8", "n_train": "1,64"},
    "transition": {"images": "640", "width": "8", "n_train": "1,10,100", "resolution": "16"},
    "resolution_scaling": {"images": "640", "width": "8", "n_train": "1,10", "resolution": "16,20"},
}
"""Sweep → settings where none is given."""


def setting(key: str, value: str) -> str:
    """A setting's value, or values with commas, on less."""
    if key not in LESS:
        return value.replace("/data/", os.environ[DATA] + "/")
    numbers = [int(float(number)) for number in value.split(",")]
    return ",".join(dict.fromkeys(str(min(number, LESS[key](number))) for number in numbers))


def settings(sweep: str, given: Mapping[str, str]) -> dict[str, str]:
    """The settings of a sweep, on less."""
    missing = {key: value for key, value in {**MISSING.get(sweep, {}), "n_test": "16"}.items() if key not in given}
    if "architecture" in given or "width" in given:
        missing.pop("width", None)
    return {**{key: setting(key, value) for key, value in given.items()}, **missing}


def words_of(words: list[str]) -> list[str]:
    """The words of a command of gahb-sweep."""
    if words[:1] not in (["plan"], ["launch"], ["search"]):
        return [word.replace("/data/", os.environ[DATA] + "/") for word in words]
    given = dict(word.split("=", 1) for word in words if _is_setting(word))
    less = settings(words[1], given)
    return [*(word for word in words if not _is_setting(word)), *(f"{key}={value}" for key, value in less.items())]


def _is_setting(word: str) -> bool:
    return "=" in word and not word.startswith("-")


def launches() -> None:
    """Have `gahb.launch` of this process train on less."""
    import gahb

    launch: Any = gahb.launch

    def less(sweep: Any, **options: Any) -> Any:
        given = {
            key: ",".join(map(str, value if isinstance(value, list) else [value])) for key, value in options.items()
        }
        changed = {key: value for key, value in settings(str(sweep), given).items() if value != given.get(key)}
        return launch(sweep, **{**options, **{key: _numbers(value) for key, value in changed.items()}})

    gahb.launch = less  # type: ignore[assignment]


def _numbers(value: str) -> Any:
    with contextlib.suppress(ValueError):
        numbers = [int(number) for number in value.split(",")]
        return numbers if len(numbers) > 1 else numbers[0]
    return value


def end(mark: str, program: str = "") -> None:
    """End the processes that were started with a mark and have a program in their command line."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            marked = f"{MARK}={mark}\0".encode() in (folder / "environ").read_bytes()
            if marked and program.encode() in (folder / "cmdline").read_bytes():
                os.kill(int(folder.name), signal.SIGKILL)


def main() -> None:
    """Be a program."""
    program, *words = sys.argv[1:]
    sys.argv = [program, *words]
    for key in {"MLFLOW_TRACKING_URI", "GAHB_STORAGE"} & os.environ.keys():
        os.environ[key] = os.environ[key].replace("/shared/", f"{os.environ['HOME']}/shared/")
    if program == "make":
        os.execv("/usr/bin/make", ["make", "-o", ".venv/installed", *words])
    if program == "ray" and words[:1] == ["stop"]:
        return end(os.environ[MARK], "site-packages/ray/")
    if program == "ray":
        from ray.scripts.scripts import main as run
    elif program == "gahb-analyze":
        from gahb_analysis.cli import main as run
    else:
        from gahb_sweeps.cli import main as run

        sys.argv = [program, *words_of(words)]
    run()


if __name__ == "__main__":
    main()
