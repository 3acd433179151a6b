"""Validation during the outer stage: held-out rows, with their messages and with shuffled ones.

The loss with a row's own messages alone does not tell content from format: links that have learnt
how an answer looks lower it too. *Shuffled minus own* is what the messages' content brings.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from rmas_train.agents.prompts import tokenise_whole
from rmas_train.channels import LatentChannel
from rmas_train.config import Config
from rmas_train.data.rows import Row, is_within_reach
from rmas_train.engine.thoughts import ThoughtStore
from rmas_train.errors import DataError, SilentChannelWarning
from rmas_train.evaluation.graders import make_grader
from rmas_train.links.card import LinksCard
from rmas_train.links.folder import load_tensors, save_links
from rmas_train.links.link_set import LinkSet
from rmas_train.recursion import Recursion, last_call
from rmas_train.runs.load import Loaded
from rmas_train.runtime.runtime import Runtime
from rmas_train.support.files import append_line, write_text
from rmas_train.support.output import say
from rmas_train.support.reading import check_type, parse_json
from rmas_train.systems.controls import shuffled
from rmas_train.training.callbacks import Callback, Step

SILENT = 0.02  # share of the loss that messages have to bring
# Summed over ranks: loss with own and with shuffled messages, answer tokens, right answers, rows.
Sums = tuple[float, float, int, int, int]


class Validation(Callback):
    """``validation.jsonl``, and ``best/``: the links with the highest accuracy so far, and among
    equals the lowest loss. (Loss alone would choose links that have learnt the format and lost the
    content.)

    Args:
        config, loaded, runtime: of the run; rows are shared out over its ranks, unless these work
            in step: then each has all of them, since they must run equally many forward passes.
        links: that are trained.
        card: of the best links.
        folder: of the stage.

    Raises:
        DataError: no row is within reach of the run's rounds.
    """

    def __init__(
        self,
        config: Config,
        loaded: Loaded,
        runtime: Runtime,
        links: LinkSet,
        card: LinksCard,
        folder: Path,
    ) -> None:
        options, table = config.training.outer, loaded.tables.valid
        assert table is not None
        rows = table.rows[: options.validate_rows]
        self._depths = range(1, config.rounds + 1)
        if not any(is_within_reach(row, depth) for row in rows for depth in self._depths):
            raise DataError(
                f"{table.path}: none of its first {len(rows)} rows is within reach of rounds="
                f"{config.rounds}; raise training.outer.validate_rows or rounds, or mend its "
                "columns rounds_needed and rounds_most."
            )
        self._rows = rows if runtime.in_step else rows[runtime.rank :: runtime.world]
        self._every, self._steps = options.validate_every, options.steps
        self._config, self._loaded, self._runtime = config, loaded, runtime
        self._links, self._card, self._folder = links, card, folder
        self._grader = make_grader(config)
        self._thoughts = ThoughtStore()
        self._best: list[float] | None = None  # accuracy and loss, means over depths

    def load(self, state: Any) -> None:
        check_type(state, list[float] | None, "Validation")
        self._best = state

    def state(self) -> list[float] | None:
        return self._best

    def begin(self, step: int) -> None:
        path = self._folder / "validation.jsonl"
        if self._runtime.is_main:
            lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
            kept = [line for line in lines if _is_before(line, step)]
            write_text(path, "".join(f"{line}\n" for line in kept))
        if step == 0:
            self._validate(0)

    def __call__(self, step: Step) -> None:
        done = step.step + 1
        if done % self._every == 0 or done == self._steps:
            self._validate(done)

    def best(self) -> Path:
        """The folder of the best links."""
        return self._folder / "best"

    def _validate(self, done: int) -> None:
        """Measure, write the line, keep the best links; ``done``: steps that have been made."""
        found = {depth: self._measure(depth) for depth in self._depths}
        by_depth = {depth: _figures(sums) for depth, sums in found.items() if sums[4]}
        loss, accuracy = (
            sum(figures[key] for figures in by_depth.values()) / len(by_depth)
            for key in ("loss", "accuracy")
        )
        is_best = self._best is None or (-accuracy, loss) < (-self._best[0], self._best[1])
        self._best = [accuracy, loss] if is_best else self._best
        if not self._runtime.is_main:
            return
        for depth, f in by_depth.items():
            say(
                f"validation after {done} steps, rounds {depth}: loss {f['loss']:.3f} (shuffled "
                f"{f['shuffled_loss']:.3f}), right {f['accuracy']:.1%} of {f['n']}"
            )
            warn_of_silence(depth, f)
        line = {"steps": done, "loss": loss, "accuracy": accuracy, "best": is_best}
        line |= {"by_depth": by_depth}
        append_line(self._folder / "validation.jsonl", json.dumps(line))
        if is_best:
            identity = self._card.identity | {"step": done}
            save_links(self.best(), self._links, replace(self._card, identity=identity))

    @torch.no_grad()
    def _measure(self, depth: int) -> Sums:
        """At one depth, over the rows within its reach."""
        rows = [row for row in self._rows if is_within_reach(row, depth)]
        sums = torch.tensor(self._sums(rows, depth), dtype=torch.float64)
        if not self._runtime.in_step:
            sums = self._runtime.sum(sums)
        loss, shuffled_loss, *counts = sums.tolist()
        return (loss, shuffled_loss, *map(int, counts))

    def _sums(self, rows: Sequence[Row], depth: int) -> Sums:
        if not rows:
            return 0.0, 0.0, 0, 0, 0
        config, team = self._config, self._loaded.team
        length = config.latent_length
        channel = LatentChannel.of(team, self._links, length, thoughts=self._thoughts)
        recursion = Recursion(team, channel)
        decoder = team.agents[team.topology.decoder]
        texts = [str(row["answer"]) for row in rows]
        answers = tokenise_whole(decoder, texts, config.training.outer.end_token)
        chunk = config.evaluation.batch_size
        call = last_call(recursion.unroll(rows, depth, chunk=chunk))
        loss = float(call.answer_loss(answers))
        written = call.write(config.evaluation.max_new_tokens)
        grades = [self._grader.grade(r, t.text) for r, t in zip(rows, written, strict=True)]
        change = [shuffled(len(rows), config.seed)] if len(rows) > 1 else []
        call = last_call(recursion.unroll(rows, depth, chunk=chunk, interventions=change))
        other = float(call.answer_loss(answers))
        right = sum(grade.right for grade in grades)
        return loss, other, sum(map(len, answers)), right, len(rows)


def warn_of_silence(depth: int, figures: dict[str, Any]) -> None:
    """Warn where the loss is the same with another row's messages: they say nothing of the row."""
    own, other = figures["loss"], figures["shuffled_loss"]
    if figures["n"] > 1 and other - own < SILENT * own:
        warnings.warn(
            f"at rounds={depth} the validation loss is {own:.4f} with a row's own messages and "
            f"{other:.4f} with those of another row: so far the channel brings nothing. If this "
            "stays so, try a smaller training.outer.lr, or links=vocabulary.",
            SilentChannelWarning,
            stacklevel=2,
        )


def take_best(validation: Validation, links: LinkSet) -> None:
    """Put the best links in the place of the last ones."""
    load_tensors(validation.best(), links)


def _figures(sums: Sums) -> dict[str, Any]:
    loss, other, tokens, right, rows = sums
    figures = {"loss": loss / tokens, "shuffled_loss": other / tokens}
    return figures | {"accuracy": right / rows, "n": rows}


def _is_before(line: str, step: int) -> bool:
    """Whether a line was written before this step began; half-written lines were not."""
    try:
        done = parse_json(line)["steps"]
    except (ValueError, KeyError, TypeError):
        return False
    return isinstance(done, int) and done <= step and step > 0
