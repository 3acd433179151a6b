"""When and what a run saves, and where it resumes."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from rmas_train.config import TrainingConfig
from rmas_train.errors import CheckpointError
from rmas_train.runtime.engines import Engine
from rmas_train.runtime.randomness import get_random_state, set_random_state
from rmas_train.runtime.runtime import Runtime
from rmas_train.support.compare import why_other
from rmas_train.support.output import say
from rmas_train.support.reading import short
from rmas_train.training import checkpoint
from rmas_train.training.callbacks import Callback, by_name
from rmas_train.training.checkpoint import Checkpoint

# What PyTorch, NumPy and Python raise on states that are none.
LOADING = (KeyError, TypeError, ValueError, RuntimeError, AttributeError, OverflowError, IndexError)


class Saver:
    """Checkpoints of one stage.

    Args:
        folder: where they are.
        identity: what a run must share with a checkpoint to go on from it.
        config: how often, and how many stay.
        runtime: rank 0 writes; every rank reads.
        resume: None: start over; ``auto``: from the newest valid one, if any; or a folder.
        card: what describes the links; kept with them, so that links can be taken from there.
    """

    def __init__(
        self,
        folder: Path,
        identity: dict[str, Any],
        config: TrainingConfig,
        runtime: Runtime,
        resume: str | None = None,
        card: Mapping[str, Any] | None = None,
    ) -> None:
        self._card = dict(card or {})
        self._folder, self._identity, self._config = folder, identity, config
        self._runtime, self._resume = runtime, resume
        self._saved_step, self._saved_at = 0, time.monotonic()

    def restore(self, engine: Engine, schedule: LRScheduler, callbacks: Sequence[Callback]) -> int:
        """Go on from where ``resume`` says; the step to begin with.

        Raises:
            CheckpointError: no valid checkpoint, or one of another run.
        """
        found = self._find()
        if found is not None:
            check_identity(found, self._identity)
            try:
                self._check(found, engine, schedule)
                self._load(found, engine, schedule)
                states = found.state["callbacks"]
                for name, callback in by_name(callbacks).items():
                    if (state := states.get(name)) is not None:
                        callback.load(state)
            except LOADING as error:
                raise CheckpointError(
                    f"{self._folder}: step {found.step} cannot be loaded ({error!r}); it is "
                    "damaged or of another version. Start over without resume=auto."
                ) from error
        step = self._saved_step = found.step if found else 0
        for callback in callbacks:
            callback.begin(step)
        return step

    def _check(self, found: Checkpoint, engine: Engine, schedule: LRScheduler) -> None:
        """Step, tensors and schedule are as this run would have saved them, but for their values.

        Raises:
            ValueError: names the key.
        """
        if not 0 <= found.step <= self._config.steps:
            raise ValueError(f"step {found.step} of {self._config.steps}")
        for key, count in found.state["updates"].items():
            if not 0 <= count <= found.step:
                raise ValueError(f"key updates.{key} is {short(count)} at step {found.step}")
        parameters = engine.parameters()
        check_like(found.links, parameters)
        of = {key: key.rpartition(".")[0] for key in found.optimizer}
        check_like(found.optimizer, {k: parameters[name] for k, name in of.items()})
        wanted, seen = schedule.state_dict(), found.state["schedule"]
        for key in sorted(wanted.keys() | seen.keys()):
            if key not in wanted or key not in seen or not is_like(seen[key], wanted[key]):
                raise ValueError(f"key schedule.{key} is {short(seen.get(key))}")
        if seen["last_epoch"] != found.step:
            raise ValueError(f"key schedule.last_epoch is {short(seen['last_epoch'])}")

    def is_due(self, step: int) -> bool:
        """Whether a checkpoint after ``step`` steps is due; rank 0's clock decides on minutes."""
        if step == self._saved_step:
            return False
        late = time.monotonic() - self._saved_at >= 60 * self._config.save_minutes
        return step % self._config.save_every == 0 or step == self._config.steps or late

    def save(
        self, step: int, engine: Engine, schedule: LRScheduler, callbacks: Sequence[Callback]
    ) -> None:
        """Write a checkpoint; all ranks take part, and fail together."""
        if step == self._saved_step:
            return
        found = self._capture(step, engine, schedule, callbacks)
        problem = None
        if self._runtime.is_main:
            try:
                checkpoint.write(self._folder, found)
                checkpoint.prune(self._folder, self._config.keep)
            except CheckpointError as error:
                problem = str(error)
        problem = self._runtime.broadcast(problem)
        if problem:
            raise CheckpointError(problem)
        self._saved_step, self._saved_at = step, time.monotonic()

    def _capture(
        self, step: int, engine: Engine, schedule: LRScheduler, callbacks: Sequence[Callback]
    ) -> Checkpoint:
        """Whole tensors from all ranks; the callbacks' states are this rank's."""
        own = f"rank{self._runtime.rank}."
        random = self._runtime.gather_dict({own + k: v for k, v in get_random_state().items()})
        state = {
            "updates": engine.steps(),
            "schedule": schedule.state_dict(),
            "callbacks": {name: c.state() for name, c in by_name(callbacks).items()},
            "world": self._runtime.world,
            "backend": self._runtime.backend,
        }
        parameters, moments = engine.parameters(), engine.moments()
        return Checkpoint(step, parameters, moments, random, state, self._identity, self._card)

    def where(self) -> str:
        """A text that names the newest checkpoint."""
        return str(self._folder / f"step_{self._saved_step:08d}") if self._saved_step else "none"

    def _find(self) -> Checkpoint | None:
        """The checkpoint to go on from; rank 0 chooses, so that all take the same one."""
        path = problem = None
        if self._runtime.is_main:
            try:
                path = self._choose()
            except CheckpointError as error:
                problem = str(error)
        path, problem = self._runtime.broadcast((path, problem))
        if problem:
            raise CheckpointError(problem)
        return checkpoint.read(Path(path)) if path else None

    def _choose(self) -> str | None:
        if self._resume is None:  # the stage has set aside what was there
            return None
        if self._resume != "auto":
            try:
                checkpoint.verify(Path(self._resume))
            except CheckpointError as error:
                raise CheckpointError(
                    f"resume={self._resume}: {error} Resume from another checkpoint."
                ) from error
            return self._resume
        found = checkpoint.newest(self._folder, say)
        say(f"resume=auto: {f'from step {found.step}' if found else 'no checkpoint, from step 0'}")
        if found is None:
            return None
        path = self._folder / f"step_{found.step:08d}"
        if (
            checkpoint.list_checkpoints(self._folder)[0] == path
        ):  # as after the save that was killed
            checkpoint.prune(self._folder, self._config.keep)
        return str(path)

    def _load(self, found: Checkpoint, engine: Engine, schedule: LRScheduler) -> None:
        engine.load_parameters(found.links)
        engine.load_moments(found.optimizer)
        engine.load_steps(found.state["updates"])
        schedule.load_state_dict(dict(found.state["schedule"]))
        lrs = schedule.get_last_lr()
        for group, lr in zip(schedule.optimizer.param_groups, lrs, strict=True):
            group["lr"] = lr
        before = found.state["world"], found.state["backend"]
        now = self._runtime.world, self._runtime.backend
        if before != now:
            say(f"checkpoint of {before} resumed by {now}: same rows per step, equal to rounding")
        own = f"rank{self._runtime.rank}."
        random = {k.removeprefix(own): v for k, v in found.random.items() if k.startswith(own)}
        if random:  # a rank that was not there before keeps its own
            set_random_state(random)


def check_like(seen: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """The same keys, shapes and dtypes.

    Raises:
        ValueError: names the key.
    """
    for key in sorted(wanted.keys() | seen.keys()):
        if key not in wanted or key not in seen:
            raise ValueError(f"key {key} is {'unknown' if key in seen else 'missing'}")
        a, b = seen[key], wanted[key]
        if a.shape != b.shape or a.dtype != b.dtype:
            raise ValueError(f"key {key} is {a.dtype} of shape {tuple(a.shape)}")


def is_like(seen: Any, wanted: Any) -> bool:
    """Plain data of the same types; lists of the same length."""
    if isinstance(wanted, list):
        same = isinstance(seen, list) and len(seen) == len(wanted)
        return same and all(map(is_like, seen, wanted))
    if isinstance(wanted, float):
        return isinstance(seen, int | float) and math.isfinite(seen)
    return type(seen) is type(wanted)


def check_identity(found: Checkpoint, wanted: Mapping[str, Any]) -> None:
    """The checkpoint is of a run with these options, agents and data.

    Raises:
        CheckpointError: names what differs.
    """
    if found.identity != wanted:
        other = why_other(found.identity, wanted)
        raise CheckpointError(
            f"the checkpoint of step {found.step} is of another run ({other}); go on with the same "
            "options, or start over without resume."
        )
