"""What both training stages have around their loop: run folder, checkpoints, callbacks, dumps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from rmas_train.compose import to_dict
from rmas_train.config import Config, TrainingConfig
from rmas_train.data.sampling import Sampler
from rmas_train.errors import NonFiniteError
from rmas_train.objectives.base import Objective
from rmas_train.registry import CALLBACKS
from rmas_train.runs.folder import stage_folder
from rmas_train.runs.handover import run_identity
from rmas_train.runs.load import Loaded
from rmas_train.runtime.runtime import Runtime
from rmas_train.support.files import write_json
from rmas_train.support.log import say
from rmas_train.training.callbacks import (
    Callback,
    LinkWatch,
    MetricsFile,
    ProgressBar,
    Step,
    Tracker,
)
from rmas_train.training.loop import train
from rmas_train.training.saver import Saver


def run_training(
    config: Config,
    loaded: Loaded,
    runtime: Runtime,
    stage: str,
    objective: Objective,
    sampler: Sampler,
    share_of: tuple[int, int] | None = None,
    callbacks: Sequence[Callback | Callable[[Step], None]] = (),
) -> None:
    """The loop with its callbacks and checkpoints; only rank 0 writes.

    Args:
        config, loaded, runtime: of the run.
        stage: ``inner`` or ``outer``.
        objective, sampler, share_of: see ``train``.
        callbacks: on every rank, after those that every run has and those that the config names.
    """
    options: TrainingConfig = getattr(config.training, stage)
    folder = Path(config.run_dir) / stage
    if runtime.is_main:
        folder = stage_folder(config, stage, loaded.agents)
    saver = Saver(
        folder / "checkpoints",
        run_identity(loaded, stage),
        options,
        runtime,
        resume_of(config, stage),
    )
    named = [CALLBACKS.get(name)(config, folder) for name in options.callbacks]
    everywhere = [LinkWatch(objective.expected_links), *named, *callbacks]
    try:
        with ExitStack() as open_:
            own = main_callbacks(config, stage, options, folder, open_) if runtime.is_main else []
            train(objective, sampler, options, runtime, [*own, *everywhere], saver, share_of)
    except NonFiniteError as error:
        if runtime.is_main:
            dump_step(folder / "nonfinite.json", error, loaded, stage, saver.where())
        raise
    loaded.assert_unchanged()


def main_callbacks(
    config: Config, stage: str, options: TrainingConfig, folder: Path, open_: ExitStack
) -> list[Callback]:
    """What rank 0 has beside: metrics, progress, trackers; ``open_`` closes them."""
    tracker = Tracker(config.tracking, folder, to_dict(config))
    bar = open_.enter_context(ProgressBar(stage, options.steps))
    open_.push(lambda kind, *_: None if kind else tracker.close())
    metrics = MetricsFile(folder / "metrics.jsonl", options.log_every, options.steps)
    return [metrics, bar, tracker]


def resume_of(config: Config, stage: str) -> str | None:
    """``resume`` for one stage: a folder belongs to the stage that its path names."""
    if config.resume in (None, "auto") or config.stage == stage:
        return config.resume
    path = Path(str(config.resume))
    return str(path) if path.parent.parent.name == stage else "auto"


def dump_step(
    path: Path, error: NonFiniteError, loaded: Loaded, stage: str, checkpoint: str
) -> None:
    """What there is to know about a step that was not taken."""
    used = loaded.tables.inner.values() if stage == "inner" else [loaded.train]
    tables = {t.path: t for t in used}
    rows = [t.where(i % len(t)) for i in error.facts.get("rows", []) for t in tables.values()]
    write_json(path, error.facts | {"rows": rows, "last_checkpoint": checkpoint})
    say(f"the step's rows and gradient norms are in {path}; last good checkpoint: {checkpoint}")
