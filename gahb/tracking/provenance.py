"""Who makes a run and with which code, as the MLflow UI's columns Created by, Source and Version show it."""

import contextlib
import getpass
import subprocess
from functools import cache
from pathlib import Path

import gahb


@cache
def provenance() -> dict[str, str]:
    """The tags for runs of this process. The commit is that of a checkout of gahb, or else its version."""
    user = {}
    with contextlib.suppress(KeyError, OSError):  # a user without a name
        user = {"mlflow.user": getpass.getuser()}
    return {
        **user,
        "mlflow.source.type": "PROJECT",
        "mlflow.source.name": "gahb",
        "mlflow.source.git.commit": f"v{gahb.__version__}",
        **_checkout(Path(gahb.__file__).resolve().parents[1]),
    }


def _checkout(folder: Path) -> dict[str, str]:
    """The tags of a folder that is the top of a git checkout; none for another."""
    git = ["git", "-C", str(folder), "rev-parse", "--show-toplevel", "HEAD", "--abbrev-ref", "HEAD"]
    try:
        top, commit, branch = subprocess.run(git, capture_output=True, check=True, text=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return {}
    if Path(top) != folder:  # gahb is installed inside something else
        return {}
    return {"mlflow.source.git.commit": commit, "mlflow.source.git.branch": branch}
