"""Prompt files that no agent of the topology has: those of the baselines that an evaluation asks
for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rmas_train.agents.prompt_files import (
    MIXTURE,
    PROPOSALS,
    SINGLE,
    TEXTGRAD,
    check_texts,
    columns_of,
)
from rmas_train.config import Config
from rmas_train.errors import DataError
from rmas_train.runs.tables import Tables

# System -> prompt files that it needs; without them it is not applicable.
NEEDED = {
    **dict.fromkeys(("single", "budget", "looplm", "lora", "sft"), (SINGLE,)),
    "moa": (SINGLE, MIXTURE),
    "textgrad": (SINGLE, TEXTGRAD),
}


def files_needed(config: Config) -> list[str]:
    """Names of the prompt files that the evaluation's systems ask for."""
    systems = [str(name) for name in config.evaluation.systems]
    systems = systems if config.stage in ("pipeline", "eval") else [config.stage]
    return list(dict.fromkeys(name for system in systems for name in NEEDED.get(system, ())))


def check_baseline_prompts(config: Config, prompts: Mapping[str, Any], tables: Tables) -> None:
    """Prompts of baselines against the rows that are evaluated.

    Raises:
        DataError: names the file, and line and column.
    """
    asked = {config.stage} | (
        set(config.evaluation.systems) if config.stage == "pipeline" else set()
    )
    is_trained = not asked.isdisjoint(("lora", "sft"))
    for name, texts in prompts.items():
        file = f"{config.data.prompts}/{name}.yaml"
        check_texts(name, texts, file, [])
        if name == TEXTGRAD and (more := [key for key in texts if key != "user"]):
            raise DataError(f"{file}: key '{more[0]}' is not read; put its text into `user`.")
        columns = set(columns_of(texts)) - ({PROPOSALS} if name == MIXTURE else set())
        if name == SINGLE and is_trained:
            tables.train.require(columns, f"named in {file}")
        for table in (tables.test, *tables.more_tests.values()):
            table.require(columns, f"named in {file}")
