"""Benchmarks: rows with questions, and a grade for a text that answers one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rmas_train.config import Config
from rmas_train.evaluation.graders import Grade, Grader, make_grader
from rmas_train.registry import BENCHMARKS
from rmas_train.runs.load import Loaded

Row = Mapping[str, Any]


class Benchmark(Protocol):
    """What an evaluation asks, and how it grades.

    Attributes:
        name: in result files, the column ``task``.
        rows: with the columns that the prompts name; ``rounds_needed`` where it is known.
    """

    @property
    def name(self) -> str: ...

    @property
    def rows(self) -> Sequence[Row]: ...

    def grade(self, row: Row, text: str) -> Grade: ...


@dataclass(frozen=True)
class RowsBenchmark:
    """Rows with a grader."""

    name: str
    rows: Sequence[Row]
    grader: Grader

    def grade(self, row: Row, text: str) -> Grade:
        return self.grader.grade(row, text)


def test_rows(config: Config, loaded: Loaded) -> RowsBenchmark:
    """``test``: the data's test rows, the first ``evaluation.max_rows`` of them."""
    rows = loaded.test.rows[: config.evaluation.max_rows]
    return RowsBenchmark(config.data.name, rows, make_grader(config))


def make_benchmarks(config: Config, loaded: Loaded) -> list[Benchmark]:
    """Those that ``evaluation.benchmarks`` names."""
    return [BENCHMARKS.get(name)(config, loaded) for name in config.evaluation.benchmarks]
