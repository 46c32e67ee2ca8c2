"""`python -m docs` writes docs/settings.md from the code."""

from docs.settings import PAGE, page

PAGE.write_text(page())
