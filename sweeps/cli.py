"""The command `gahb-sweep`: what can be trained, what it will cost, train it, and what has become of it.

Heavy imports stand inside the commands, so that `--help` is quick.
"""

from gahb.cli import run

from .commands import app

from .commands import plans, training, looking, ui, housekeeping  # isort: skip  # noqa: F401  # each adds its commands, in this order


def main() -> None:
    """Entry point."""
    run(app, "gahb-sweep")
