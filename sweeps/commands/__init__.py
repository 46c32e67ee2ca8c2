"""The commands of `gahb-sweep`: a module for each group of them, which adds its own to `app`."""

from collections.abc import Mapping, Sequence
from typing import Any

from gahb.cli import App

from . import launch_file

PLAN, TRAIN, LOOK, KEEP_HOUSE = "Plan", "Train", "Look", "Keep house"
"""The panels of the help, of which each command names one."""


class SweepApp(App):
    """`gahb-sweep`, some of whose commands take a launch in a file."""

    def expanded(self, words: Sequence[str]) -> list[str]:
        return launch_file.expanded(words, self.options)

    def options(self) -> Mapping[str, Mapping[str, bool]]:
        """Command → name of an option, with _ for -, → whether it is a switch, of those that take such a file."""
        import typer.main

        group: Any = typer.main.get_command(self)
        return {
            word: {
                max(p.opts, key=len).lstrip("-").replace("-", "_"): p.is_flag
                for p in group.commands[word].params
                if p.param_type_name == "option"
            }
            for word in launch_file.COMMANDS
        }


app = SweepApp(
    "Train denoisers over training-set size, resolution, architecture and data.",
    (
        "gahb-sweep plan demo                     # what it costs; trains nothing",
        "gahb-sweep launch demo --as first        # again after any interruption: it goes on",
        "gahb-sweep status first",
        "gahb-analyze report first                # what the models have learnt",
    ),
)
