"""How much each message matters, for a question and for a data set.

Gradient-based connections (GBC, arXiv 2606.28187) weigh the parents of a text by the gradient at
their tokens. Between agents that pass vectors the same is exact, through all later calls and
rounds, and one backward pass gives it for every message and position:

- ``gradient``: the norm of d(score) / d(message vector), summed over positions;
- ``times_input``: |gradient . vector|, the first-order effect of taking the vector away.

With ``analysis.steps`` above 1 the gradient is the mean over so many points between no message and
the message, all messages together (integrated gradients): as many backward passes, and their sum is
the whole effect. What a score is: see ``Bench.scores``.

Both are guesses at what an intervention does, and are checked against interventions
(``ablation``), and against leave-one-out credit (C3, arXiv 2603.06859): the score with the row's
own message, less the mean of the scores with those that other rows sent there, all else fixed.

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

GUESSES = ("gradient", "times_input")


class Attribution:
    """``analyses=[attribution]``."""

    def __init__(self, config: Config) -> None:
        self._options = config.analysis

    def run(self, bench: Bench) -> dict[str, Any]:
        """Plain data, see docs/insight.md."""
        targets = [bench.targets(rows) for rows in bench.batches()]
        places, guessed = self._guess(bench, targets)
        means = Means(bench)
        measured = {kind: drops(bench, targets, places, means.change(kind)) for kind in KINDS}
        measured["leave_one_out"] = credit(bench, targets, places, self._options.alternatives)
        totals = {name: x_BPM.sum(-1) for name, x_BPM in guessed.items()}
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

    def _guess(self, bench: Bench, targets: Sequence[Ids]) -> tuple[list[Place], dict[str, Tensor]]:
        """Places, and (B, P, M) of each guess."""
        places: list[Place] = []
        found: dict[str, list[Tensor]] = {name: [] for name in GUESSES}
        for rows, ids in zip(bench.batches(), targets, strict=True):
            places, gradients, vectors = influence(bench, rows, ids, self._options.steps)
            norms = [g.norm(dim=-1) for g in gradients]
            products = [(g * x).sum(-1).abs() for g, x in zip(gradients, vectors, strict=True)]
            found["gradient"].append(torch.stack(norms, 1))
            found["times_input"].append(torch.stack(products, 1))
        return places, {name: torch.cat(parts) for name, parts in found.items()}

    def _examples(self, rows: Rows, every: dict[str, Tensor]) -> list[dict[str, Any]]:
        return [
            {"question": row["question"], "answer": row["answer"]}
            | {name: x_BP[i].tolist() for name, x_BP in every.items()}
            for i, row in enumerate(rows[: self._options.examples])
        ]


class _Leaves:
    """An intervention: messages whose gradients are kept, scaled towards none.

    Args:
        share: what messages are multiplied by.
    """

    def __init__(self, share: float = 1.0) -> None:
        self._share = share
        self.seen: dict[Place, tuple[Tensor, Tensor]] = {}

    def __call__(self, message: Message, edge: Edge, round_: int) -> Message:
        if not isinstance(message, LatentMessage):
            return message
        vectors = message.vectors
        if not vectors.requires_grad:
            vectors = vectors.detach().requires_grad_()
        scaled = vectors * self._share
        scaled.retain_grad()
        self.seen[round_, edge.key] = scaled, vectors
        return message.with_tensors([scaled])


def influence(
    bench: Bench, rows: Rows, ids: Ids, steps: int = 1
) -> tuple[list[Place], list[Tensor], list[Tensor]]:
    """Places, the gradient of each row's score at its messages, (B, M, D) each, and the messages.

    Args:
        bench: the system.
        rows: questions.
        ids: the answers that are scored.
        steps: see this file.
    """
    total: list[Tensor] = []
    places: list[Place] = []
    vectors: list[Tensor] = []
    for step in range(steps):
        leaves = _Leaves(1.0 if steps == 1 else (step + 0.5) / steps)
        with torch.enable_grad():
            call = bench.last(rows, [leaves])
            bench.scores(call, ids).sum().backward()
        places = sorted(leaves.seen)
        pairs = [leaves.seen[place] for place in places]
        gradients = [_grad(scaled) / steps for scaled, _ in pairs]
        total = [a + b for a, b in zip(total, gradients, strict=True)] if total else gradients
        vectors = [whole.detach() for _, whole in pairs]
    return places, total, vectors


def _grad(x: Tensor) -> Tensor:
    return torch.zeros_like(x) if x.grad is None else x.grad
