"""Failures injected into a cluster of several hosts on one machine, and what a sweep makes of them: `make chaos`."""
