"""Which rows and how many rounds each optimizer step gets: a pure function of (seed, step).

The order does not depend on ranks, micro-batches or what ran before, so a run on any layout sees
the same rows in the same steps.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import torch

from rmas_train.data.rows import is_between
from rmas_train.errors import DataError


def stream_seed(seed: int, *names: object) -> int:
    """A seed for one named use of randomness, from the run's one root seed."""
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


def permutation(count: int, seed: int, *names: object) -> list[int]:
    generator = torch.Generator().manual_seed(stream_seed(seed, *names))
    return torch.randperm(count, generator=generator).tolist()


def depth_at(step: int, steps: int, rounds: int, schedule: str, seed: int) -> int:
    """Rounds of an optimizer step.

    Args:
        step: from 0.
        steps: of the whole stage.
        rounds: the largest depth.
        schedule: ``fixed``: always ``rounds``; ``uniform``: drawn from 1..rounds; ``growing``:
            drawn from 1..d, where d grows from 1 to ``rounds`` and stays at each depth for a part
            of the run in proportion to it.
    """
    if schedule == "fixed":
        return rounds
    if schedule == "growing":
        share = (step + 0.5) / steps * rounds * (rounds + 1) / 2
        rounds = next(d for d in range(1, rounds + 1) if share <= d * (d + 1) / 2)
    generator = torch.Generator().manual_seed(stream_seed(seed, "depth", step))
    return int(torch.randint(1, rounds + 1, (), generator=generator))


@dataclass
class Sampler:
    """Rows of each step; with ``rounds_needed``, only rows within reach of the step's rounds.

    Args:
        rounds_needed: one entry per row; None where the data do not say.
        depths: rounds of each step.
        batch_size: rows per step.
        seed: the run's root seed.
        rounds_most: one entry per row, as ``rounds_needed``; None: no row says it.
    """

    rounds_needed: list[int | None]
    depths: list[int]
    batch_size: int
    seed: int
    rounds_most: list[int | None] | None = None
    _orders: dict[tuple[int, int], list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._pools = {d: self._within_reach(d) for d in set(self.depths)}
        self._drawn_before: list[int] = []  # rows drawn from the same pool before each step
        drawn = dict.fromkeys(self._pools, 0)
        for depth in self.depths:
            self._drawn_before.append(drawn[depth])
            drawn[depth] += self.batch_size

    def rows(self, step: int) -> list[int]:
        """Row indices of a step, ``batch_size`` of them."""
        depth, begin = self.depths[step], self._drawn_before[step]
        return [self._row(depth, i) for i in range(begin, begin + self.batch_size)]

    def _row(self, depth: int, index: int) -> int:
        pool = self._pools[depth]
        epoch, place = divmod(index, len(pool))
        if (depth, epoch) not in self._orders:
            order = permutation(len(pool), self.seed, "rows", depth, epoch)
            self._orders[depth, epoch] = order
        return pool[self._orders[depth, epoch][place]]

    def _within_reach(self, depth: int) -> list[int]:
        most = self.rounds_most or [None] * len(self.rounds_needed)
        pool = [
            i
            for i, (least, last) in enumerate(zip(self.rounds_needed, most, strict=True))
            if is_between(least, last, depth)
        ]
        if not pool:
            raise DataError(
                f"No training row has rounds_needed <= {depth} (and rounds_most >= {depth}, where "
                "it is given), so no step at this depth can learn; add such rows, set "
                "training.outer.depth=fixed, or drop the column."
            )
        return pool


def share(rows: list[int], parts: int, part: int) -> list[int]:
    """Consecutive rows of one of ``parts`` equal parts; the first ones may have one more."""
    base, extra = divmod(len(rows), parts)
    begin = part * base + min(part, extra)
    return rows[begin : begin + base + (part < extra)]
