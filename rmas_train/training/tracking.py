"""Weights & Biases, trackio and TensorBoard: the same names in all of them; opt-in, offline too.

Each stage of a run is a run of its own there, ``<run folder>/<stage>``, in the group of the run, or
of the sweep that it is a job of.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from rmas_train.compose import to_dict
from rmas_train.config import Config
from rmas_train.errors import ConfigError
from rmas_train.support.reading import check_type
from rmas_train.training.callbacks import Callback, Step

PROJECT = "rmas_train"


@dataclass(frozen=True)
class Place:
    """Where a stage's numbers go.

    Attributes:
        folder: for what is kept here.
        name, group: of the run.
        config: its options.
    """

    folder: Path
    name: str
    group: str
    config: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(cls, config: Config, stage: str) -> Self:
        run = Path(config.run_dir)
        group = config.tracking_group or run.name
        return cls(run / stage, f"{run.name}/{stage}", group, to_dict(config))


class Trackers:
    """The open runs of some trackers.

    Args:
        names: which.
        place: where to.
        run_id: the same one goes on with the same run.
        step: from which on; later ones of before are dropped where that can be.

    Raises:
        ConfigError: one cannot start.
    """

    def __init__(self, names: Sequence[str], place: Place, run_id: str, step: int = 0) -> None:
        self._open: dict[str, Any] = {}
        for name in names:
            try:
                tracker = self._make(name, place, run_id, step)
                tracker.start()
            except Exception as error:  # wandb's, its server's, its HTTP library's
                raise ConfigError(
                    f"tracking={name}: cannot start ({type(error).__name__}: {error}); mend it, "
                    "set WANDB_MODE=offline for wandb, or leave tracking out."
                ) from error
            self._open[name] = tracker

    def _make(self, name: str, place: Place, run_id: str, step: int) -> Any:
        from accelerate.tracking import TensorBoardTracker, TrackioTracker, WandBTracker

        folder, config = str(place.folder), dict(place.config)
        if name == "tensorboard":
            return TensorBoardTracker("tensorboard", logging_dir=folder, purge_step=step)
        same = {"group": place.group, "config": config, "resume": "allow"}
        if name == "trackio":
            return TrackioTracker(PROJECT, name=f"{place.name} {run_id}", **same)
        return WandBTracker(PROJECT, dir=folder, name=place.name, id=run_id, **same)

    def log(self, values: Mapping[str, Any], step: int) -> None:
        for tracker in self._open.values():
            tracker.log(dict(values), step=step)

    def table(self, key: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table of texts; TensorBoard shows it as Markdown."""
        for name, tracker in self._open.items():
            if name == "tensorboard":
                lines = [head, ["---"] * len(head), *rows]
                tracker.tracker.add_text(key, "\n".join(f"|{'|'.join(one)}|" for one in lines))
            else:
                library = _library(name)
                made = library.Table(columns=list(head), data=[list(row) for row in rows])
                tracker.tracker.log({key: made})

    def page(self, key: str, html: Path, markdown: Path) -> None:
        """A report: the page itself, or its Markdown where pages cannot be kept."""
        text = markdown.read_text(encoding="utf-8")
        for name, tracker in self._open.items():
            if name == "tensorboard":
                tracker.tracker.add_text(key, text)
            elif name == "wandb":
                page = html.read_text(encoding="utf-8")
                tracker.tracker.log({key: _library(name).Html(page, inject=False)})
            else:
                tracker.tracker.log({key: _library(name).Markdown(text)})

    def close(self) -> None:
        for tracker in self._open.values():
            tracker.finish()


def _library(name: str) -> Any:
    if name == "wandb":
        import wandb

        return wandb
    import trackio

    return trackio


class Tracker(Callback):
    """Loss, depth, learning rate and gradient norms of every step."""

    def __init__(self, names: list[str], place: Place) -> None:
        self._names, self._place = names, place
        self._trackers: Trackers | None = None
        self._run_id = secrets.token_hex(4)

    def load(self, state: Any) -> None:
        check_type(state, str, "Tracker")
        self._run_id = state

    def begin(self, step: int) -> None:
        if self._names:
            self._trackers = Trackers(self._names, self._place, self._run_id, step)

    def __call__(self, step: Step) -> None:
        values = {"loss": step.loss, "lr": step.lr, "rounds": step.rounds}
        values |= {f"gradient_norm/{k}": v for k, v in step.gradient_norms.items()}
        if self._trackers is not None:
            self._trackers.log(values, step.step)

    def state(self) -> str:
        return self._run_id

    def close(self) -> None:
        if self._trackers is not None:
            self._trackers.close()
