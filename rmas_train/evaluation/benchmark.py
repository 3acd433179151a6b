"""Benchmarks: rows with questions, and a grade for a text that answers one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from rmas_train.config import Config
from rmas_train.data.rows import check_answer, is_within_reach
from rmas_train.errors import DataError
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


@dataclass(frozen=True)
class WithinReach:
    """The rows of a benchmark that so many rounds can answer."""

    benchmark: Benchmark
    depth: int

    @property
    def name(self) -> str:
        return self.benchmark.name

    @cached_property
    def rows(self) -> Sequence[Row]:
        return [row for row in self.benchmark.rows if is_within_reach(row, self.depth)]

    def grade(self, row: Row, text: str) -> Grade:
        return self.benchmark.grade(row, text)


def test_rows(config: Config, loaded: Loaded) -> RowsBenchmark:
    """``test``: the data's test rows, the first ``evaluation.max_rows`` of them."""
    rows = loaded.test.rows[: config.evaluation.max_rows]
    return RowsBenchmark(config.data.name, rows, make_grader(config))


def more_tests(config: Config, loaded: Loaded) -> list[Benchmark]:
    """``data.more_tests``, where the test rows are asked for; as many rows of each."""
    if "test" not in config.evaluation.benchmarks:
        return []
    most = config.evaluation.max_rows
    return [
        RowsBenchmark(f"{config.data.name}_{name}", table.rows[:most], make_grader(config))
        for name, table in loaded.tables.more_tests.items()
    ]


def make_benchmarks(config: Config, loaded: Loaded) -> list[Benchmark]:
    """Those that ``evaluation.benchmarks`` names.

    Raises:
        DataError: one has no rows, a row without an answer, or the name of another.
    """
    found: dict[str, Benchmark] = {}
    named = dict.fromkeys(config.evaluation.benchmarks)
    made: list[tuple[str, Benchmark]] = [(n, BENCHMARKS.get(n)(config, loaded)) for n in named]
    made += [(f"test ({one.name})", one) for one in more_tests(config, loaded)]
    for name, benchmark in made:
        if not benchmark.rows:
            raise DataError(f"evaluation.benchmarks={name}: it has no rows; leave it out.")
        for i, row in enumerate(benchmark.rows):
            check_answer(row, f"evaluation.benchmarks={name}, row {i}")
        if benchmark.name in found:
            raise DataError(
                f"evaluation.benchmarks={name}: another one is called '{benchmark.name}' in the "
                "results, too; rename one (the data's is data.name)."
            )
        found[benchmark.name] = benchmark
    return list(found.values())
