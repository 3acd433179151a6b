"""What an evaluation asks: parts of benchmarks, which every system answers.

A part is a run of consecutive rows. Parts are cut by ``evaluation.batch_size`` alone, so they are
the same on any number of ranks, and those before the last are the same for more rows. Rows that are
mixed with others (``shuffled``) are so within groups of ``GROUP`` rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rmas_train.config import Config
from rmas_train.evaluation.benchmark import Benchmark, WithinReach
from rmas_train.evaluation.records import row_hash
from rmas_train.systems.controls import GROUP, stretches


@dataclass(frozen=True)
class Part:
    """Consecutive rows of a benchmark, at one or more depths.

    Attributes:
        first: index of the first row in ``benchmark.rows``.
        rows: these rows.
        depths: rounds.
    """

    benchmark: Benchmark
    first: int
    rows: Sequence[Mapping[str, Any]]
    depths: tuple[int, ...]

    @cached_property
    def hashes(self) -> list[str]:
        """Of each row's content; every system and depth asks for them."""
        return [row_hash(row) for row in self.rows]


def parts_of(config: Config, benchmarks: Sequence[Benchmark]) -> list[Part]:
    """Everything that is asked, benchmark by benchmark."""
    size = -(-config.evaluation.batch_size // GROUP) * GROUP
    return [
        Part(benchmark, begin, benchmark.rows[begin:end], tuple(depths))
        for benchmark, depths in _asked(config, benchmarks)
        for begin, end in stretches(len(benchmark.rows), size)
    ]


def _asked(
    config: Config, benchmarks: Sequence[Benchmark]
) -> Iterator[tuple[Benchmark, Sequence[int]]]:
    """What is asked at which depths: everything at each, or what is within its reach alone."""
    for benchmark in benchmarks:
        if config.evaluation.beyond_reach:
            yield benchmark, config.eval_rounds
            continue
        for depth in config.eval_rounds:
            within = WithinReach(benchmark, depth)
            if within.rows:
                yield within, [depth]
