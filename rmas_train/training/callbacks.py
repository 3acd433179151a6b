"""What happens around the steps: metrics file, progress bar, trackers, dead-link watch."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rmas_train.errors import ConfigError
from rmas_train.log import file_only, say
from rmas_train.training.gradients import DeadLinkWatch
from rmas_train.training.loop import Step


class MetricsFile:
    """``metrics.jsonl``: one line per ``every`` steps, and the last step."""

    def __init__(self, path: Path, every: int, steps: int) -> None:
        self._path, self._every, self._steps = path, every, steps
        path.write_text("", encoding="utf-8")

    def __call__(self, step: Step) -> None:
        if step.step % self._every and step.step + 1 != self._steps:
            return
        line = {
            "step": step.step,
            "rounds": step.rounds,
            "loss": step.loss,
            "lr": step.lr,
            "gradient_norms": step.gradient_norms,
            "seconds": step.seconds,
        }
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


class ProgressBar(AbstractContextManager["ProgressBar"]):
    """A bar on a terminal; plain lines, every 10%, in the log and where output goes to a file."""

    def __init__(self, title: str, steps: int) -> None:
        self._title, self._steps = title, steps
        self._smooth = 0.0
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

    def __call__(self, step: Step) -> None:
        self._smooth = 0.9 * self._smooth + 0.1 * step.seconds if self._smooth else step.seconds
        left = (self._steps - step.step - 1) * self._smooth
        numbers = (
            f"loss {step.loss:.4f}  rounds {step.rounds}  lr {step.lr:.1e}  "
            f"{1 / max(self._smooth, 1e-9):.1f} steps/s"
        )
        if self._bar:
            self._bar.update(self._task, completed=step.step + 1, numbers=numbers)
        if (step.step + 1) % max(1, self._steps // 10) == 0:
            write = file_only if self._bar else say
            write(f"{self._title} {step.step + 1}/{self._steps}  {numbers}  ETA {left:.0f}s")


class Tracker:
    """Weights & Biases and TensorBoard through Accelerate's kept adapters; opt-in, offline too."""

    def __init__(self, names: list[str], folder: Path, config: dict[str, Any]) -> None:
        from accelerate.tracking import TensorBoardTracker, WandBTracker

        kinds: dict[str, Callable[[], Any]] = {
            "wandb": lambda: WandBTracker("rmas_train", dir=str(folder), config=config),
            "tensorboard": lambda: TensorBoardTracker("tensorboard", logging_dir=str(folder)),
        }
        self._trackers = []
        for name in names:
            try:
                tracker = kinds[name]()
                tracker.start()
            except (ImportError, NameError) as error:
                raise ConfigError(
                    f"tracking={name}: not installed; pip install 'rmas_train[track]'."
                ) from error
            self._trackers.append(tracker)

    def __call__(self, step: Step) -> None:
        values = {"loss": step.loss, "lr": step.lr, "rounds": step.rounds}
        values |= {f"gradient_norm/{k}": v for k, v in step.gradient_norms.items()}
        for tracker in self._trackers:
            tracker.log(values, step=step.step)

    def close(self) -> None:
        for tracker in self._trackers:
            tracker.finish()


def watch(expected: Callable[[int], set[str]]) -> Callable[[Step], None]:
    """The dead-link watch as a callback."""
    inner = DeadLinkWatch(expected)
    return lambda step: inner(step.rounds, step.gradient_norms)
