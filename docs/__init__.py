"""The documents, and the program that writes docs/settings.md: `python -m docs`."""
