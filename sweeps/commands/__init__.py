"""The commands of `gahb-sweep`: a module for each group of them, which adds its own to `app`."""

from gahb.cli import App

PLAN, TRAIN, LOOK, KEEP_HOUSE = "Plan", "Train", "Look", "Keep house"
"""The panels of the help, of which each command names one."""

app = App(
    "Train denoisers over training-set size, resolution, architecture and data.",
    (
        "gahb-sweep plan demo                     # what it costs; trains nothing",
        "gahb-sweep launch demo --as first        # again after any interruption: it goes on",
        "gahb-sweep status first",
        "gahb-analyze report first                # what the models have learnt",
    ),
)
