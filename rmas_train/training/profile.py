"""``profile.jsonl``: gradients of messages and of links' uses, by edge and round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rmas_train.objectives.profile import MessageProfile
from rmas_train.runtime.runtime import Runtime
from rmas_train.training.callbacks import LinesFile, Step, Update


class ProfileFile(LinesFile):
    """A line per ``every`` steps, and for the last; rank 0 writes, all ranks add up.

    Args:
        profile: of the objective.
        path, every, steps: see ``LinesFile``.
        runtime: the ranks.

    Attributes:
        latest: the last line.
    """

    def __init__(
        self, profile: MessageProfile, path: Path, every: int, steps: int, runtime: Runtime
    ) -> None:
        super().__init__(path, every, steps)
        self._profile, self._runtime = profile, runtime
        self.latest: dict[str, Any] = {}

    def begin(self, step: int) -> None:
        if self._runtime.is_main:
            super().begin(step)
        self._profile.is_on = self._is_due(step)

    def before_update(self, update: Update) -> None:
        if not self._profile.is_on:
            return
        edges = self._profile.collect(self._runtime.sum, scale=self._runtime.world)
        line = {"step": update.step, "rounds": update.rounds, "loss": update.loss, "edges": edges}
        self.latest = line
        if self._runtime.is_main:
            self._add(line)

    def __call__(self, step: Step) -> None:
        self._profile.is_on = self._is_due(step.step + 1)
