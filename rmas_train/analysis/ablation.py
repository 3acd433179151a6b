"""What changing one message does to the score of an answer, all else as it was.

Tensor names: B rows, P places (a round and an edge).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from rmas_train.analysis.bench import Bench, Ids
from rmas_train.data.sampling import permutation
from rmas_train.engine.inputs import LatentMessage, Message
from rmas_train.recursion import Intervention
from rmas_train.topology import Edge

Place = tuple[int, str]  # round, edge key
Change = Callable[[LatentMessage, Place], LatentMessage]
KINDS = ("zero", "mean", "shuffled")


class Means:
    """The mean message of each place over all rows, and the three ablations.

    Args:
        bench: the system; unrolled once.
    """

    @torch.no_grad()
    def __init__(self, bench: Bench) -> None:
        sums: dict[Place, Tensor] = {}
        for rows in bench.batches():
            for call in bench.unroll(rows):
                for edge in call.edges:
                    place, message = (call.round, edge.key), call.messages[edge.key]
                    assert isinstance(message, LatentMessage)
                    added = message.vectors.sum(0)
                    sums[place] = added if place not in sums else sums[place] + added
        self._means = {place: total / len(bench.rows) for place, total in sums.items()}

    def of(self, place: Place) -> Tensor:
        """The mean message, (M, D)."""
        return self._means[place]

    def change(self, kind: str) -> Change:
        """``zero``: no vectors; ``mean``: what all rows share; ``shuffled``: the next row's."""

        def apply(message: LatentMessage, place: Place) -> LatentMessage:
            if kind == "zero":
                return message.with_tensors([torch.zeros_like(message.vectors)])
            if kind == "mean":
                mean_MD = self._means[place].to(message.vectors)
                return message.with_tensors([mean_MD.expand_as(message.vectors)])
            return message.rows([*range(1, len(message.vectors)), 0])

        return apply


def at(places: Sequence[Place], change: Change) -> Intervention:
    """The change at these places alone."""

    def intervene(message: Message, edge: Edge, round_: int) -> Message:
        is_here = (round_, edge.key) in places and isinstance(message, LatentMessage)
        return change(message, (round_, edge.key)) if is_here else message  # type: ignore[arg-type]

    return intervene


@torch.no_grad()
def drops(bench: Bench, targets: Sequence[Ids], places: Sequence[Place], change: Change) -> Tensor:
    """By how much each row's score falls where one place is changed, (B, P)."""
    found = []
    for rows, ids in zip(bench.batches(), targets, strict=True):
        whole_B = bench.scores(bench.last(rows), ids)
        columns = [
            whole_B - bench.scores(bench.last(rows, [at([place], change)]), ids) for place in places
        ]
        found.append(torch.stack(columns, 1))
    return torch.cat(found)


@torch.no_grad()
def credit(
    bench: Bench, targets: Sequence[Ids], places: Sequence[Place], alternatives: int
) -> Tensor:
    """Leave-one-out credit of each row's message at each place, (B, P).

    The alternatives are what the same edge carried in the same round for other rows of the batch.
    """
    found = []
    for rows, ids in zip(bench.batches(), targets, strict=True):
        whole_B = bench.scores(bench.last(rows), ids)
        others: dict[Place, list[Tensor]] = defaultdict(list)
        for number in range(min(alternatives, len(rows) - 1)):
            order = derangement(len(rows), bench.config.seed, number)
            for place in places:
                change = at([place], partial(_in_order, order=order))
                others[place].append(bench.scores(bench.last(rows, [change]), ids))
        columns = [
            whole_B - torch.stack(others[p]).mean(0) if others[p] else torch.zeros_like(whole_B)
            for p in places
        ]
        found.append(torch.stack(columns, 1))
    return torch.cat(found)


def _in_order(message: LatentMessage, _: Place, order: list[int]) -> LatentMessage:
    return message.rows(order)


def derangement(count: int, seed: int, number: int) -> list[int]:
    """An order in which no row keeps its place: along a cycle through all rows."""
    cycle = permutation(count, seed, "alternatives", number)
    order = [0] * count
    for here, there in zip(cycle, [*cycle[1:], cycle[0]], strict=True):
        order[here] = there
    return order
