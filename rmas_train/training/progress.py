"""How far a stage is: a bar on a terminal, lines in the log."""

from __future__ import annotations

import resource
import sys
import time
from contextlib import AbstractContextManager
from types import TracebackType

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rmas_train.support.output import file_only, say
from rmas_train.training.callbacks import Callback, Step

LINE_SECONDS = 60.0


class ProgressBar(Callback, AbstractContextManager["ProgressBar"]):
    """A bar on a terminal; plain lines in the log and where output goes to a file.

    Lines are written every 10% of the steps, and after ``seconds`` without one.
    """

    def __init__(self, title: str, steps: int, seconds: float = LINE_SECONDS) -> None:
        self._title, self._steps, self._every = title, steps, seconds
        self._smooth = self._tokens = 0.0
        self._told = time.monotonic()
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn(title),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[numbers]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task(title, total=steps, numbers="")

    def __enter__(self) -> ProgressBar:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()

    def begin(self, step: int) -> None:
        self._told = time.monotonic()
        if self._bar:
            self._bar.update(self._task, completed=step)

    def __call__(self, step: Step) -> None:
        is_first = not self._smooth
        self._smooth = step.seconds if is_first else 0.9 * self._smooth + 0.1 * step.seconds
        self._tokens = step.tokens if is_first else 0.9 * self._tokens + 0.1 * step.tokens
        numbers = self._numbers(step)
        if self._bar:
            self._bar.update(self._task, completed=step.step + 1, numbers=numbers)
        if self._is_due(step):
            self._told = time.monotonic()
            left = (self._steps - step.step - 1) * self._smooth
            write = file_only if self._bar else say
            write(
                f"{self._title} {step.step + 1}/{self._steps}  {numbers}  {memory()}  "
                f"ETA {left:.0f}s"
            )

    def _is_due(self, step: Step) -> bool:
        is_tenth = (step.step + 1) % max(1, self._steps // 10) == 0
        return is_tenth or time.monotonic() - self._told >= self._every

    def _numbers(self, step: Step) -> str:
        seconds = max(self._smooth, 1e-9)
        return (
            f"loss {step.loss:.4f}  rounds {step.rounds}  lr {step.lr:.1e}  "
            f"{1 / seconds:.1f} steps/s  {self._tokens / seconds:.0f} target tokens/s"
        )


def memory() -> str:
    """The most memory that this process has had: of its GPU, or else of the machine."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return f"GPU peak {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux, bytes on macOS
    return f"peak {peak / (2**30 if sys.platform == 'darwin' else 2**20):.2f} GiB"
