"""A time limit on Python code that comes with a model: its chat template."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class TooSlowError(Exception):
    """The code ran longer than its limit."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Stop the block's calls of Python code after so many seconds, in any thread.

    The clock is read at every line that they run. Signals would work in the main thread alone.

    Raises:
        TooSlowError: the time is over.
    """
    end = time.monotonic() + seconds

    def look(frame: FrameType, event: str, argument: Any) -> Any:  # noqa: ARG001
        if time.monotonic() > end:
            raise TooSlowError(f"{seconds:.0f} s are over")
        return look

    before = sys.gettrace()
    sys.settrace(look)
    try:
        yield
    finally:
        sys.settrace(before)
