"""Run, gather and write down the campaign: see the package."""

import argparse
import os
import shlex
import subprocess
import sys

from . import __doc__ as usage
from .campaign import PARTS


def main() -> None:
    parser = argparse.ArgumentParser("results", description=usage, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", nargs="?", choices=("run", "gather", "page"))
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    chosen = parser.parse_args()
    if unknown := set(chosen.parts) - PARTS.keys():
        parser.error(f"no part {min(unknown)!r}; there are {', '.join(PARTS)}")
    names = chosen.parts or list(PARTS)
    {"run": run, "gather": gather, "page": page}.get(chosen.action, show)(names)


def show(names: list[str]) -> None:
    for name in names:
        print(f"{name}: {PARTS[name].title}", *PARTS[name].commands, sep="\n  ")


def run(names: list[str]) -> None:
    """Type the commands; one that fails ends its part."""
    failed = []
    for name in names:
        for command in PARTS[name].commands:
            print(f"$ {command}", file=sys.stderr, flush=True)
            if subprocess.run(shlex.split(os.path.expandvars(command)), stdout=subprocess.DEVNULL).returncode:
                failed.append(name)
                break
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


def gather(names: list[str]) -> None:
    from .gather import gather as bring

    for name in names:
        for missing in bring(PARTS[name]):
            print(f"{name}: the record has no {missing} yet", file=sys.stderr)


def page(names: list[str]) -> None:
    from .figure import draw
    from .page import PAGE, README, in_readme, write

    draw()
    PAGE.write_text(write())
    README.write_text(in_readme(README.read_text()))


if __name__ == "__main__":
    main()
