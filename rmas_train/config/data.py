"""Options of the data: files, prompts, texts, recipes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from rmas_train.config.options import check_least, option
from rmas_train.errors import ConfigError
from rmas_train.registry import GRADERS


@dataclass(kw_only=True)
class DataConfig:
    name: str = option("", "task name in results")
    hub: dict[str, str | None] = option(
        {}, "hub id of each data set that the recipe reads -> its commit; null: not pinned"
    )
    recipe: str | None = option(None, "folder of data_recipes/ whose build.py makes the files")
    recipe_options: dict[str, Any] = option({}, "passed to build.py as --key value")
    folder: str = option("", "where the files are, or where the recipe writes them")
    train: str = option("train.jsonl", "training rows, in folder")
    test: str = option("test.jsonl", "test rows, in folder; never trained on")
    prompts: str = option("", "folder with one <agent>.yaml per agent")
    task: str | None = option(
        None, "prompts that name <<task:...>>: a file of data.tasks, math | choice | code | qa"
    )
    tasks: str = option("prompts/tasks", "folder with one <task>.yaml per task")
    role_texts: dict[str, str] = option({}, "agent -> column with the text it should write")
    inner_files: dict[str, str] = option(
        {}, "agent -> file in folder that its inner link trains on; others: train (mixture)"
    )
    feedback_texts: dict[str, str] = option(
        {}, "agent -> column with the text it sent in the round before; empty text: first round"
    )
    translations: dict[str, dict[str, str]] = option(
        {}, "text recursion: source-target -> word for word dictionary"
    )
    answer_pattern: str = option(
        r"^\s*(?P<answer>.+?)\s*$", "regular expression whose group `answer` is compared exactly"
    )
    grader: str = option("pattern", "pattern: answer_pattern, compared exactly; or a plugin's")
    max_length: int = option(4096, "tokens: longest prompt with its slots and answer")

    def __post_init__(self) -> None:
        GRADERS.check(self.grader)
        check_least("data.max_length", self.max_length, 1)
        try:
            pattern = re.compile(self.answer_pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise ConfigError(
                f"data.answer_pattern={self.answer_pattern}: {error}; mend the expression."
            ) from error
        if "answer" not in pattern.groupindex:
            raise ConfigError(
                f"data.answer_pattern={self.answer_pattern} has no group named `answer`; "
                "write (?P<answer>...) around what is to be compared."
            )
