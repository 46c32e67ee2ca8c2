"""`python -m gahb_analysis`, for processes that know the package and not where its command is."""

from .cli import main

main()
