"""The one exception that a user's input raises, and the hint that goes with an unknown word."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """Something the user can put right. The message is one line: what is wrong and what to do."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A closing hint for an unknown word: the nearest known one, or else all of them."""
    known = list(known)
    close = get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known))}"
