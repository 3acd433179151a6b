"""How much each message matters, for a question and for a data set.

Gradient-based connections (GBC, arXiv 2606.28187) weigh the parents of a text by the gradient at
their tokens. Between agents that pass vectors the same is exact, through all later calls and
rounds, and one backward pass gives it for every message and position:

- ``gradient``: the norm of d(log-odds) / d(message vector), summed over positions;
- ``times_input``: gradient . vector, the first-order effect of taking a vector away;
- ``patching``: gradient . (vector - the rows' mean), that of the mean vector in its place.

Of the last two, absolute values are summed over positions: effects of opposite sign are effects.

All are guesses at what an intervention does, and are checked against interventions
(``ablation``), and against leave-one-out credit (C3, arXiv 2603.06859): the score with the row's
own message, less the mean of the scores with those that other rows sent there, all else fixed.
Interventions are measured in log p of the answer; gradients are of its log-odds, because where a
system is sure, log p levels off and its gradient is nearly nothing. See ``Bench.scores``.

Tensor names: B rows, P places (a round and an edge), M vectors of a message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rmas_train.analysis.ablation import KINDS, Means, Place, credit, drops
from rmas_train.analysis.agreement import agreement
from rmas_train.analysis.bench import Bench, Ids, Rows
from rmas_train.config import Config
from rmas_train.engine.inputs import LatentMessage, Message
from rmas_train.topology import Edge

GUESSES = ("gradient", "times_input", "patching")


class Attribution:
    """``analyses=[attribution]``."""

    def __init__(self, config: Config) -> None:
        self._options = config.analysis

    def run(self, bench: Bench) -> dict[str, Any]:
        """Plain data, see docs/insight.md."""
        targets = [bench.targets(rows) for rows in bench.batches()]
        means = Means(bench)
        places, guessed = self._guess(bench, targets, means)
        measured = {kind: drops(bench, targets, places, means.change(kind)) for kind in KINDS}
        measured["leave_one_out"] = credit(bench, targets, places, self._options.alternatives)
        totals = {name: x_BPM.abs().sum(-1) for name, x_BPM in guessed.items()}
        every = totals | measured
        return {
            "target": self._options.target,
            "rows": len(bench.rows),
            "places": [
                {"round": round_, "edge": edge}
                | {name: x_BP[:, i].abs().mean().item() for name, x_BP in every.items()}
                | {"positions": guessed["gradient"][:, i].mean(0).tolist()}
                for i, (round_, edge) in enumerate(places)
            ],
            "agreement": {
                guess: {name: agreement(totals[guess], x_BP) for name, x_BP in measured.items()}
                for guess in GUESSES
            },
            "examples": self._examples(bench.rows, every),
        }

    def _guess(
        self, bench: Bench, targets: Sequence[Ids], means: Means
    ) -> tuple[list[Place], dict[str, Tensor]]:
        """Places, and (B, P, M) of each guess."""
        places: list[Place] = []
        found: dict[str, list[Tensor]] = {name: [] for name in GUESSES}
        for rows, ids in zip(bench.batches(), targets, strict=True):
            places, gradients, vectors = influence(bench, rows, ids)
            both = list(zip(places, gradients, vectors, strict=True))
            norms = [g.norm(dim=-1) for g in gradients]
            products = [(g * x).sum(-1) for _, g, x in both]
            patches = [(g * (x - means.of(place).to(x))).sum(-1) for place, g, x in both]
            for name, columns in zip(GUESSES, (norms, products, patches), strict=True):
                found[name].append(torch.stack(columns, 1))
        return places, {name: torch.cat(parts) for name, parts in found.items()}

    def _examples(self, rows: Rows, every: dict[str, Tensor]) -> list[dict[str, Any]]:
        return [
            {"question": row["question"], "answer": row["answer"]}
            | {name: x_BP[i].tolist() for name, x_BP in every.items()}
            for i, row in enumerate(rows[: self._options.examples])
        ]


class _Leaves:
    """An intervention that keeps messages, so that their gradients can be read."""

    def __init__(self) -> None:
        self.seen: dict[Place, Tensor] = {}

    def __call__(self, message: Message, edge: Edge, round_: int) -> Message:
        if not isinstance(message, LatentMessage):
            return message
        vectors = message.vectors
        if not vectors.requires_grad:
            vectors = vectors.detach().requires_grad_()
        vectors.retain_grad()
        self.seen[round_, edge.key] = vectors
        return message.with_tensors([vectors])


def influence(bench: Bench, rows: Rows, ids: Ids) -> tuple[list[Place], list[Tensor], list[Tensor]]:
    """Places, the gradients of each row's log-odds at its messages, (B, M, D), and the messages.

    Args:
        bench: the system.
        rows: questions.
        ids: the answers that are scored.
    """
    leaves = _Leaves()
    with torch.enable_grad():
        bench.scores(bench.last(rows, [leaves]), ids, odds=True).sum().backward()
    places = sorted(leaves.seen)
    vectors = [leaves.seen[place] for place in places]
    gradients = [torch.zeros_like(x) if x.grad is None else x.grad for x in vectors]
    return places, gradients, [x.detach() for x in vectors]
