"""Prompt files: ``<agent>.yaml``, and the sentences that a task adds to it.

``<<task:key>>`` is replaced by a sentence of ``<tasks>/<task>.yaml``. So one file per agent is used
for mathematics, code, choice and question answering, in every round.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rmas_train.errors import DataError, did_you_mean
from rmas_train.support.reading import parse_yaml, short

TASK_MARK = re.compile(r"<<task:(?P<key>[A-Za-z_][A-Za-z0-9_]*)>>")


def read_prompt(folder: Path, name: str, tasks: Path | None, task: str | None) -> dict[str, Any]:
    """The texts of one agent's prompt file, with the task's sentences in place.

    Args:
        folder: ``data.prompts``.
        name: of the agent.
        tasks: ``data.tasks``; may be None or missing if the prompts name no task.
        task: ``data.task``.

    Raises:
        DataError: file missing or malformed, or a task's sentence that is not there.
    """
    path = folder / f"{name}.yaml"
    if not path.is_file():
        raise DataError(f"{path}: no prompt file for agent {name}; write one, or set data.prompts.")
    texts = _read(path)
    if not isinstance(texts, dict):
        raise DataError(f"{path}: needs a key `user` with the text of the user's turn; add it.")
    if not any(isinstance(t, str) and TASK_MARK.search(t) for t in texts.values()):
        return texts
    sentences = read_task(tasks, task, path)

    def put(match: re.Match[str]) -> str:
        key = match["key"]
        if key not in sentences:
            raise DataError(
                f"{path}: {match[0]}, but task {task} has no {key}. "
                f"{did_you_mean(key, list(sentences))}"
            )
        return sentences[key]

    return {k: TASK_MARK.sub(put, t) if isinstance(t, str) else t for k, t in texts.items()}


def read_task(tasks: Path | None, task: str | None, asker: Path) -> Mapping[str, str]:
    """Key -> sentence of one task.

    Raises:
        DataError: no such task, or its file is malformed; names ``asker``, the file that needs it.
    """
    known = sorted(p.stem for p in tasks.glob("*.yaml")) if tasks and tasks.is_dir() else []
    if task is None:
        raise DataError(f"{asker}: differs by task; set data.task, one of {', '.join(known)}.")
    if tasks is None or task not in known:
        raise DataError(f"data.task={task}: {tasks} has no such task. {did_you_mean(task, known)}")
    path = tasks / f"{task}.yaml"
    sentences = _read(path)
    if not isinstance(sentences, dict):
        raise DataError(f"{path}: not keys with sentences; write `finish: ...` and so on.")
    for key, value in sentences.items():
        if not isinstance(value, str) or "<<" in value:
            raise DataError(f"{path}: key '{key}' holds {short(value)}; give a text without marks.")
    return sentences


def _read(path: Path) -> Any:
    try:
        return parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not valid YAML ({error}); fix the file.") from error
