"""A rank ends with the launcher that started it.

A launcher that is killed cannot stop its ranks: they would go on, hold their devices, and write to
the run folder beside the run that was started in their place.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

from rmas_train.support.output import say

PARENT = os.getppid()  # read early, before the launcher can have died
EVERY = 0.5  # seconds between looks
GRACE = 300.0  # seconds for the step and its checkpoint, before the process is ended at once


def follow_launcher() -> None:
    """Where a launcher started several processes: watch it, and stop when it has ended."""
    if not any(t.name == "launcher watch" for t in threading.enumerate()):
        watch = threading.Thread(target=_watch, args=(os.getppid,), name="launcher watch")
        watch.daemon = True
        watch.start()


def _watch(parent: Callable[[], int]) -> None:
    """SIGTERM, as a launcher that is stopped would send it; later the end, whatever hangs."""
    while parent() == PARENT:
        time.sleep(EVERY)
    say(f"the launcher (process {PARENT}) has ended; this rank stops")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(128 + signal.SIGTERM)
