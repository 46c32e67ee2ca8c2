"""The user's own folder on this machine's disk, which nobody else may enter: `gahb-<uid>` in the temporary folder.

Whatever is read back from the disk and trusted lies in it: Ray's sessions, which hold code; kernels that compilers
keep; what was fetched from a bucket. `python -m gahb.own_folder [NAME]` makes it and prints the path.
"""

import os
import stat
import sys
import tempfile
from pathlib import Path

from gahb.errors import UserError


def own_folder(*names: str, root: Path | None = None) -> Path:
    """The folder, or one in it, made if need be, of mode 700.

    Args:
        names: of the folders that lead to one in it.
        root: the temporary folder; that of this process (`TMPDIR`, else /tmp) if left out, or the one in which that
            lies if it is the user's own already.

    Raises:
        UserError: a folder on the way to it is another user's, a link, or open to others.
    """
    own, root = f"gahb-{os.getuid()}", root or Path(tempfile.gettempdir())
    if root.name == own:
        root = root.parent
    about = root.stat()
    if about.st_mode & stat.S_IWOTH and not about.st_mode & stat.S_ISVTX:
        raise UserError(f"others may replace what is in {root}; set TMPDIR to a folder of your own")
    place = root
    for name in (own, *names):
        place /= name
        _make(place)
    return place


def use_own_folder() -> None:
    """Let this process, and those that it starts, keep their temporary files in the user's own folder. Raises UserError
    as `own_folder`."""
    os.environ["TMPDIR"] = tempfile.tempdir = str(own_folder())


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        about = folder.lstat()
        if not stat.S_ISDIR(about.st_mode):
            raise UserError(f"{folder} is a link or a file and shall be a folder; remove it") from None
        if about.st_uid != os.getuid():
            raise UserError(f"{folder} belongs to another user; set TMPDIR to a folder of your own") from None
        if about.st_mode & 0o077:
            raise UserError(f"others may enter {folder}, and may have changed what is in it; remove it") from None


def main() -> None:
    try:
        print(own_folder(*sys.argv[1:]))
    except UserError as error:
        print(f"gahb: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
