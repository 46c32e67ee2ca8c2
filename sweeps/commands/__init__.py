"""The commands of `gahb-sweep`: a module for each group of them, which adds its own to `app`."""

from gahb.cli import App

app = App("Train denoisers over training-set size, resolution, architecture and data.")
