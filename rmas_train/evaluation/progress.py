"""How far an evaluation is."""

from __future__ import annotations

import time
from collections.abc import Iterable

from rmas_train.support.output import say


class Progress:
    """Says how far the answers are, now and then, and when they will be there.

    Args:
        counts: answers of each part.
        seconds: between two lines.
    """

    def __init__(self, counts: Iterable[int], seconds: float = 10.0) -> None:
        self._all, self._done, self._seconds = sum(counts), 0, seconds
        self._began = self._told = time.monotonic()

    def tell(self, answers: int, part: str) -> None:
        """More answers are there, of this part."""
        self._done, now = self._done + answers, time.monotonic()
        if now - self._told < self._seconds and self._done < self._all:
            return
        self._told = now
        left = (now - self._began) / self._done * (self._all - self._done)
        say(f"eval part {part}: {self._done} of {self._all} answers  ETA {left:.0f}s")
