"""How far a training has got between two evaluations, and how fast it is."""

import time
from collections import deque

LOOKS = 8
"""Over so many looks speed is averaged, evaluations and checkpoints among them: about a minute."""


class Pace:
    """What a training notes after each step, in one thread, and the metric logger asks for, in another.

    A GPU may have a few of the steps that are noted still before it: to wait for it would slow training down.
    """

    def __init__(self) -> None:
        self._images_seen = 0
        self._looks: deque[tuple[float, int]] = deque(maxlen=LOOKS)

    def note(self, images_seen: int) -> None:
        """So many images have been seen."""
        self._images_seen = images_seen
        if not self._looks:  # from here, as the first step may take long: it compiles
            self._looks.append((time.monotonic(), images_seen))

    def news(self) -> str:
        """ "images seen:images a second" for the run's tag; empty where nothing has moved."""
        seen = self._images_seen
        if not self._looks or seen == self._looks[-1][1]:
            return ""
        self._looks.append((time.monotonic(), seen))
        (began, first), (now, last) = self._looks[0], self._looks[-1]
        return f"{seen}:{(last - first) / (now - began):.3f}"
