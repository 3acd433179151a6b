"""Options of ``stage=analyse``."""

from __future__ import annotations

from dataclasses import dataclass

from rmas_train.config.system import MOST_ROWS, check_choice, check_least, option


@dataclass(kw_only=True)
class AnalysisConfig:
    target: str = option(
        "answer",
        "attribution: of what | answer: log-odds of the system's own answer | loss: of the "
        "gold answer",
    )
    alternatives: int = option(4, "attribution: other rows' messages per leave-one-out credit")
    examples: int = option(8, "attribution, lens: rows that are written out")
    top_k: int = option(5, "lens: tokens per vector")
    column: str = option("answer", "probes: column of the rows that is to be read off")

    def __post_init__(self) -> None:
        check_choice("analysis.target", self.target, ("answer", "loss"))
        for key in ("alternatives", "top_k"):
            check_least(f"analysis.{key}", getattr(self, key), 1, MOST_ROWS)
        check_least("analysis.examples", self.examples, 0, MOST_ROWS)
