"""A callback that reads gradients: the share of each link's gradient that one parameter has."""

from __future__ import annotations

import json
from pathlib import Path

from rmas_train.config import Config
from rmas_train.registry import CALLBACKS
from rmas_train.training.callbacks import Callback, Update


class GradientShares(Callback):
    """Writes, every tenth step, the largest parameter of each link by gradient norm."""

    def __init__(self, config: Config, folder: Path) -> None:
        self._path = folder / "gradient_shares.jsonl"

    def begin(self, step: int) -> None:
        if step == 0:
            self._path.write_text("")

    def before_update(self, update: Update) -> None:
        if update.step % 10:
            return
        line: dict[str, object] = {"step": update.step}
        for name, link in update.links.items():
            found = {k: update.gradient(p) for k, p in link.named_parameters()}
            norms = {k: float(g.norm()) for k, g in found.items() if g is not None}
            line[name] = max(norms, key=lambda k: norms[k]) if norms else None
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")


CALLBACKS.register("gradient_shares", GradientShares)
