"""What happens around the steps: metrics file, progress bar, trackers, dead-link watch."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from rmas_train.support.files import append_line, write_text
from rmas_train.support.output import file_only, say
from rmas_train.support.reading import parse_json
from rmas_train.training.optimizer import DeadLinkWatch


@dataclass(frozen=True)
class Step:
    """What one optimizer step leaves behind.

    Attributes:
        loss: sum of the terms' means.
        gradient_norms: per link, before clipping; 0 where no gradient arrived.
        tokens: that the loss counts, over all ranks (terms of an objective of one's own).
    """

    step: int
    rounds: int
    loss: float
    lr: float
    gradient_norms: dict[str, float]
    seconds: float
    tokens: int = 0


@dataclass(frozen=True)
class Update:
    """An optimizer step that is about to be taken, with its gradients.

    Attributes:
        step, rounds, loss, lr, gradient_norms: as in ``Step``.
        links: trainable links by name.
        gradient: a parameter's whole gradient, summed over ranks and not clipped; None where none
            arrived. Where ranks share parameters, every rank must call this.
    """

    step: int
    rounds: int
    loss: float
    lr: float
    gradient_norms: dict[str, float]
    links: Mapping[str, nn.Module]
    gradient: Callable[[nn.Parameter], Tensor | None]


class Callback:
    """Told of every step; its state is saved in checkpoints, under its class's name."""

    def load(self, state: Any) -> None:
        """Go on from what ``state()`` gave, before ``begin``."""

    def begin(self, step: int) -> None:
        """Before the first step, ``step``."""

    def before_update(self, update: Update) -> None:
        """Before an optimizer step, while gradients are there; the update has not been made."""

    def __call__(self, step: Step) -> None:
        """After an optimizer step."""

    def state(self) -> Any:
        """Plain data to go on from."""
        return None


class AfterStep(Callback):
    """A plain function that is told of every step."""

    def __init__(self, function: Callable[[Step], None]) -> None:
        self._function = function

    def __call__(self, step: Step) -> None:
        self._function(step)


def by_name(callbacks: Sequence[Callback]) -> dict[str, Callback]:
    """Callbacks by the names of their states: the class's, with a number from its second one on."""
    named: dict[str, Callback] = {}
    for callback in callbacks:
        name, count = type(callback).__name__, 1
        while (key := name if count == 1 else f"{name}#{count}") in named:
            count += 1
        named[key] = callback
    return named


class LinesFile(Callback):
    """A line of JSON per ``every`` steps, and for the last step.

    A resumed run removes lines after its checkpoint, so that no line occurs twice.
    """

    def __init__(self, path: Path, every: int, steps: int) -> None:
        self._path, self._every, self._steps = path, every, steps

    def begin(self, step: int) -> None:
        wanted = {s for s in range(step) if self._is_due(s)}
        exists = step > 0 and self._path.is_file()
        text = self._path.read_text(encoding="utf-8", errors="replace") if exists else ""
        lines = text.splitlines()
        kept = [line for line in lines if _step_of(line) in wanted]
        if len(kept) != len(wanted):
            say(f"{self._path}: lines of steps before {step} are missing; it stays incomplete.")
        write_text(self._path, "".join(f"{line}\n" for line in kept))

    def _is_due(self, step: int) -> bool:
        return step % self._every == 0 or step + 1 == self._steps

    def _add(self, line: Mapping[str, Any]) -> None:
        append_line(self._path, json.dumps(line))


class MetricsFile(LinesFile):
    """``metrics.jsonl``."""

    def __call__(self, step: Step) -> None:
        if not self._is_due(step.step):
            return
        line = {
            "step": step.step,
            "rounds": step.rounds,
            "loss": step.loss,
            "lr": step.lr,
            "gradient_norms": step.gradient_norms,
            "seconds": step.seconds,
        }
        self._add(line)


def _step_of(line: str) -> int | None:
    """None for a line that a killed process left half-written."""
    try:
        step = parse_json(line)["step"]
    except (ValueError, KeyError, TypeError):
        return None
    return step if isinstance(step, int) else None


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


class LinkWatch(Callback):
    """The dead-link watch."""

    def __init__(self, expected: Callable[[int], set[str]]) -> None:
        self._watch = DeadLinkWatch(expected)

    def load(self, state: Any) -> None:
        self._watch.load(state)

    def __call__(self, step: Step) -> None:
        self._watch(step.rounds, step.gradient_norms)

    def state(self) -> Any:
        return self._watch.state()
