"""A command of ours as it is typed here, for lines that tell what to do next."""

import os
import shlex
import shutil
import sys
from pathlib import Path


def command_line(program: str, *words: str) -> str:
    """A command line that works in the working directory: with the program's name if it is on PATH, or else with its
    path, beside this process's program or Python."""
    return shlex.join([_found(program), *words])


def _found(program: str) -> str:
    if shutil.which(program):
        return program
    beside = os.pathsep.join(str(Path(each).absolute().parent) for each in (sys.argv[0], sys.executable))
    if not (found := shutil.which(program, path=beside)):
        return program
    path, here = Path(found), Path.cwd()
    return str(path.relative_to(here) if here in path.parents[1:] else path)
