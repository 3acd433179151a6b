"""SIGTERM and SIGINT ask the loop to stop at the next step; a second one stops at once."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import AbstractContextManager
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)
ONE_PRESS = 2.0  # seconds: a launcher passes on the signal that the terminal sent already


class StopSignals(AbstractContextManager["StopSignals"]):
    """Catches the signals while a loop runs.

    Args:
        catch: False: leave them to whoever has them.

    Attributes:
        received: the first signal's number; 0: none.
    """

    def __init__(self, catch: bool = True) -> None:
        self._catches = catch and threading.current_thread() is threading.main_thread()
        self.received = 0
        self._when = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if self._catches:
            self._before = {number: signal.signal(number, self._catch) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def _catch(self, number: int, _: FrameType | None) -> None:
        if not self.received:
            self.received, self._when = number, time.monotonic()
        elif time.monotonic() - self._when > ONE_PRESS:
            self._restore()
            signal.raise_signal(number)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
