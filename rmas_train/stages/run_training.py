"""What both training stages have around their loop: run folder, checkpoints, callbacks, dumps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rmas_train.compose import to_dict
from rmas_train.config import Config, OuterConfig, TrainingConfig
from rmas_train.data.sampling import Sampler
from rmas_train.errors import ConfigError, NonFiniteError
from rmas_train.runs.folder import stage_folder
from rmas_train.runs.handover import run_identity
from rmas_train.runs.load import Loaded
from rmas_train.runtime.runtime import Runtime
from rmas_train.support.files import write_json
from rmas_train.support.log import say
from rmas_train.training.callbacks import Callback, LinkWatch, MetricsFile, ProgressBar, Tracker
from rmas_train.training.loop import train
from rmas_train.training.saver import Saver


def check_layout(stage: OuterConfig, runtime: Runtime) -> None:
    """The outer stage's options work with this back end and placement.

    Raises:
        ConfigError: they do not, with what would.
    """
    if runtime.placement == "sharded" and stage.prefix_cache_gib:
        raise ConfigError(
            f"training.outer.prefix_cache_gib={stage.prefix_cache_gib} with "
            "runtime.placement=sharded: a prefix found by one rank only would leave the others "
            "waiting; set training.outer.prefix_cache_gib=0."
        )
    if runtime.backend == "zero3" and (stage.recompute == "agent" or stage.gradient == "parallel"):
        raise ConfigError(
            "runtime.backend=zero3 takes links apart between their forwards, which "
            f"training.outer.recompute={stage.recompute} and gradient={stage.gradient} cannot "
            "work with; use runtime=zero2, or recompute=none and gradient=full."
        )


def run_training(
    config: Config,
    loaded: Loaded,
    runtime: Runtime,
    stage: str,
    options: TrainingConfig,
    objective: Any,
    sampler: Sampler,
    share_of: tuple[int, int] | None = None,
) -> None:
    """The loop with its callbacks and checkpoints; only rank 0 writes."""
    folder = Path(config.run_dir) / stage
    callbacks: list[Callback] = [LinkWatch(objective.expected_links)]
    if runtime.is_main:
        folder = stage_folder(config, stage, loaded.agents)
    saver = Saver(
        folder / "checkpoints",
        run_identity(loaded, stage),
        options,
        runtime,
        resume_of(config, stage),
    )
    try:
        if not runtime.is_main:
            train(objective, sampler, options, runtime, callbacks, saver, share_of)
        else:
            tracker = Tracker(config.tracking, folder, to_dict(config))
            with ProgressBar(stage, options.steps) as bar:
                metrics = MetricsFile(folder / "metrics.jsonl", options.log_every, options.steps)
                callbacks = [metrics, bar, tracker, *callbacks]
                train(objective, sampler, options, runtime, callbacks, saver, share_of)
            tracker.close()
    except NonFiniteError as error:
        if runtime.is_main:
            dump_step(folder / "nonfinite.json", error, loaded, stage, saver.where())
        raise
    loaded.assert_unchanged()


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
    tables = {t.path: t for t in (loaded.inner.values() if stage == "inner" else [loaded.train])}
    rows = [t.where(i % len(t)) for i in error.facts.get("rows", []) for t in tables.values()]
    write_json(path, error.facts | {"rows": rows, "last_checkpoint": checkpoint})
    say(f"the step's rows and gradient norms are in {path}; last good checkpoint: {checkpoint}")
