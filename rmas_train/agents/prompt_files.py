"""Prompt files: read, checked, split at their marks.

A prompt file is YAML with ``user`` and optionally ``system``, ``user_first`` (for a call that
receives no message) and ``columns`` (texts that depend on the row, see ``row_texts``).
``<<column>>`` stands for a column of the row, ``<<round>>`` for the number of the round,
``<<message:agent>>`` for the slot of that agent's message, ``<<task:key>>`` for a sentence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmas_train.agents.row_texts import RowText, read_row_texts
from rmas_train.errors import DataError, did_you_mean
from rmas_train.support.reading import parse_yaml, short

SINGLE = "single"  # prompt file of an agent that answers without the others
MIXTURE = "moa"  # of an agent that reads the answers of all: mixture of agents
TEXTGRAD = "textgrad"  # how a model judges an answer of `single`; its user's text alone
PROPOSALS = "proposals"  # the column in which it reads them
TASK_MARK = re.compile(r"<<task:(?P<key>[A-Za-z_][A-Za-z0-9_]*)>>")
MARK = re.compile(r"<<(?P<kind>message:)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)>>")
# What may have been meant as a mark: spaces in it, another kind, a name that no column can have.
LIKE_MARK = re.compile(r"<<[ \t]*[\w.:-][\w .:-]{0,80}>>|<<[A-Za-z_][\w:]*>(?!>)")
KEYS = ("system", "user", "user_first", "columns")


@dataclass(frozen=True)
class Part:
    """A piece of a rendered prompt: literal text, a row's column, or a slot."""

    kind: str  # "text", "column" or "slot"
    value: str


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
    written = {k: t for k, t in texts.items() if isinstance(t, str)}
    for key, text in written.items():
        check_marks(f"{path}: key '{key}'", key, TASK_MARK.sub("", text))
    if not any(TASK_MARK.search(text) for text in written.values()):
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

    return texts | {k: TASK_MARK.sub(put, t) for k, t in written.items()}


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


def check_marks(where: str, key: Any, text: str) -> None:
    """What looks like a mark is one, and stands where marks are filled in.

    Raises:
        DataError: names ``where`` and the mark.
    """
    for found in LIKE_MARK.finditer(text):
        inside = re.sub(r"\s", "", found[0].strip("<>"))
        right = f"<<{inside}>>"
        if key == "system" and MARK.fullmatch(right):
            remedy = "the system turn takes none, put it into user"
        elif MARK.fullmatch(found[0]):
            continue
        elif MARK.fullmatch(right) or TASK_MARK.fullmatch(right):
            remedy = f"write {right}, without spaces and with two brackets on each side"
        else:
            remedy = "marks are <<column>>, <<round>>, <<message:agent>> and <<task:key>>"
        raise DataError(f"{where}: {found[0]} is no mark here; {remedy}.")


def columns_of(texts: Mapping[str, Any]) -> set[str]:
    """Columns of a row that a prompt's texts need."""
    parts = [p for key in ("user", "user_first") for p in split_marks(texts.get(key) or "")]
    return needed_columns(parts, read_row_texts(texts))


def needed_columns(parts: Sequence[Part], computed: Mapping[str, RowText]) -> set[str]:
    """Columns that these parts name, those of the row's texts in the place of computed ones."""
    named = {p.value for p in parts if p.kind == "column"} - {"round"}
    tested = [computed[name].needed for name in named & computed.keys()]
    return (named - computed.keys()).union(*tested)


def split_marks(text: str) -> list[Part]:
    parts, end = [], 0
    for match in MARK.finditer(text):
        parts.append(Part("text", text[end : match.start()]))
        parts.append(Part("slot" if match["kind"] else "column", match["name"]))
        end = match.end()
    return [p for p in [*parts, Part("text", text[end:])] if p.value]


def check_texts(name: str, texts: Any, where: str, sources: list[str]) -> None:
    """Check that a prompt has the right keys, and one slot for each agent that sends to it.

    Raises:
        DataError: names ``where`` and the key or slot.
    """
    if not isinstance(texts, dict) or not isinstance(texts.get("user"), str):
        raise DataError(f"{where}: needs a key `user` with the text of the user's turn; add it.")
    for key, value in texts.items():
        if key not in KEYS:
            raise DataError(f"{where}: unknown key '{key}'. {did_you_mean(str(key), KEYS)}")
        if key != "columns" and not isinstance(value, str | None):
            raise DataError(f"{where}: key '{key}' holds {short(value)}; put the text in quotes.")
    read_row_texts(texts, where)
    slots = [p.value for p in split_marks(texts["user"]) if p.kind == "slot"]
    for source in sources:
        if slots.count(source) != 1:
            raise DataError(
                f"{where}: {slots.count(source)} slots for {source}, which sends to "
                f"{name}; write <<message:{source}>> once where its message goes."
            )
    for slot in slots:
        if slot not in sources:
            raise DataError(
                f"{where}: slot <<message:{slot}>>, but {slot} sends nothing to {name}; "
                "remove the slot or add the edge."
            )
