"""A benchmark with a grader: the test rows of few operations, graded by the last word alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rmas_train.config import Config
from rmas_train.data.rows import Table
from rmas_train.evaluation.benchmark import RowsBenchmark
from rmas_train.evaluation.graders import Grade
from rmas_train.registry import BENCHMARKS, GRADERS
from rmas_train.runs.load import Loaded


@GRADERS.register("last_word")
class LastWord:
    """Right if the last words of text and answer are the same."""

    def __init__(self, config: Config) -> None:
        pass

    def grade(self, row: Mapping[str, Any], text: str) -> Grade:
        words = text.split()
        return Grade(words[-1:] == row["answer"].split()[-1:], bool(words), " ".join(words[-1:]))

    def check(self, table: Table) -> None:
        table.require(["answer"], "what the decoder should write")


@BENCHMARKS.register("one_round")
def one_round(config: Config, loaded: Loaded) -> RowsBenchmark:
    """Problems that a single round can solve."""
    rows = [row for row in loaded.test.rows if row.get("rounds_needed", 1) == 1]
    return RowsBenchmark("one_round", rows[: config.evaluation.max_rows], LastWord(config))
