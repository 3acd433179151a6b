"""Prompts with slots: read from data files, rendered by the chat template, split, tokenised.

A prompt file is YAML with ``user`` and optionally ``system`` and ``user_first`` (for a call that
receives no message). ``<<column>>`` stands for a column of the row, ``<<round>>`` for the number of
the round, ``<<message:agent>>`` for the slot of that agent's message. ``prompt_files.py`` reads the
files and inserts the sentences of the task.

The text is split at these marks *before* values are filled in. So a question that contains a mark,
or the text of a special token, stays ordinary text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2.exceptions import TemplateError

from rmas_train.agents.agent import Agent
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


MARK = re.compile(r"<<(?P<kind>message:)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)>>")
# What may have been meant as a mark: spaces in it, another kind, a name that no column can have.
LIKE_MARK = re.compile(r"<<[ \t]*[\w.:-][\w .:-]{0,80}>>|<<[A-Za-z_][\w:]*>(?!>)")
KEYS = ("system", "user", "user_first")


@dataclass(frozen=True)
class Part:
    """A piece of a rendered prompt: literal text, a row's column, or a slot."""

    kind: str  # "text", "column" or "slot"
    value: str


@dataclass(frozen=True)
class EncodedPrompt:
    """Token ids with slots: ``slots[i]`` = (agent that fills it, position in ``ids``)."""

    ids: list[int]
    slots: list[tuple[str, int]]


class Prompt:
    """One agent's prompt, rendered once by its own chat template."""

    def __init__(self, agent: Agent, texts: Mapping[str, str | None], file: str = "prompt") -> None:
        self.agent, self.file = agent, file
        marks = sorted(agent.tokenizer.get_added_vocab(), key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, marks)) or r"(?!)")
        system = texts.get("system")
        self.user = self._render(system, texts["user"] or "")
        first = texts.get("user_first")
        self.first = self._render(system, first) if first is not None else self.user

    @property
    def slots(self) -> list[str]:
        return [p.value for p in self.user if p.kind == "slot"]

    @property
    def columns(self) -> set[str]:
        parts = self.user + self.first
        return {p.value for p in parts if p.kind == "column"} - {"round"}

    def encode(
        self, rows: list[Mapping[str, Any]], round_: int, first: bool
    ) -> list[EncodedPrompt]:
        """Token ids of each row's prompt, up to the beginning of the agent's own text.

        Args:
            rows: columns of each problem.
            round_: number of the round, from 1.
            first: the call receives no message (prompt ``user_first``, without slots).
        """
        runs: list[list[Part]] = [[]]
        slots: list[str] = []
        for part in self.first if first else self.user:
            if part.kind != "slot":
                runs[-1].append(part)
            elif not first:  # if first, no message arrives: leave the slot out
                slots.append(part.value)
                runs.append([])
        columns = [self._tokenise([self._fill(run, row, round_) for row in rows]) for run in runs]
        return [self._join(pieces, slots) for pieces in zip(*columns, strict=True)]

    def _join(self, pieces: tuple[list[int], ...], slots: list[str]) -> EncodedPrompt:
        ids, where = list(pieces[0]), []
        for name, piece in zip(slots, pieces[1:], strict=True):
            where.append((name, len(ids)))
            ids += piece
        return EncodedPrompt(ids, where)

    def _fill(self, run: list[Part], row: Mapping[str, Any], round_: int) -> list[Part]:
        values = {"round": str(round_)}
        return [
            Part("column", values.get(p.value) or str(row[p.value])) if p.kind == "column" else p
            for p in run
        ]

    def _tokenise(self, filled: list[list[Part]]) -> list[list[int]]:
        """Tokenise whole runs; piece by piece if a row's values contain a special token's text."""
        texts = ["".join(p.value for p in parts) for parts in filled]
        ids = tokenise(self.agent, texts)
        for i, parts in enumerate(filled):
            values = [p.value for p in parts if p.kind == "column"]
            if any(self._special.search(value) for value in values):
                ids[i] = []
                for p in parts:
                    ids[i] += tokenise(self.agent, [p.value], plain=p.kind == "column")[0]
        return ids

    def _render(self, system: str | None, user: str) -> list[Part]:
        """The rendered chat, split into parts at the marks of ``user``."""
        parts = split_marks(user)
        mark = next(c for c in map(chr, range(0xE000, 0xF8FF)) if c not in f"{system}{user}")
        names = [f"{mark}{i}{mark}" for i in range(len(parts))]
        body = "".join(
            p.value if p.kind == "text" else n for p, n in zip(parts, names, strict=True)
        )
        text = render_chat(self.agent, system, body)
        rendered: list[Part] = []
        for piece in re.split(f"({mark}\\d+{mark})", text):
            if piece in names:
                rendered.append(parts[names.index(piece)])
            elif piece:
                rendered.append(Part("text", piece))
        return rendered


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


def columns_of(texts: Mapping[str, str | None]) -> set[str]:
    """Columns of a row that a prompt's texts name."""
    parts = [p for key in ("user", "user_first") for p in split_marks(texts.get(key) or "")]
    return {p.value for p in parts if p.kind == "column"} - {"round"}


def split_marks(text: str) -> list[Part]:
    parts, end = [], 0
    for match in MARK.finditer(text):
        parts.append(Part("text", text[end : match.start()]))
        parts.append(Part("slot" if match["kind"] else "column", match["name"]))
        end = match.end()
    return [p for p in [*parts, Part("text", text[end:])] if p.value]


def render_chat(agent: Agent, system: str | None, user: str) -> str:
    """Render the chat template with the generation prompt.

    If the template refuses a system turn, the system text is put before the user's text.
    """
    turns = [{"role": "user", "content": user}]
    system_turn = [{"role": "system", "content": system}] if system else []
    kwargs = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": False}
    try:
        return agent.tokenizer.apply_chat_template(system_turn + turns, **kwargs)
    except TemplateError:  # Gemma and Mistral style: "roles must alternate"
        if not system:
            raise
        turns = [{"role": "user", "content": f"{system}\n\n{user}"}]
        return agent.tokenizer.apply_chat_template(turns, **kwargs)


def tokenise(agent: Agent, texts: list[str], plain: bool = False) -> list[list[int]]:
    """Ids without added special tokens; ``plain``: a special token's text is ordinary text."""
    encoded = agent.tokenizer(texts, add_special_tokens=False, split_special_tokens=plain)
    return [list(ids) for ids in encoded["input_ids"]]


def tokenise_whole(agent: Agent, texts: list[str]) -> list[list[int]]:
    """Ids of texts as the agent itself would write them: plain text, then its end-of-text token."""
    return [[*ids, agent.end_id] for ids in tokenise(agent, texts, plain=True)]


def make_prompt(agent: Agent, texts: Any, where: str, sources: list[str]) -> Prompt:
    """A prompt from its texts, with exactly the wanted slots.

    Raises:
        DataError: names ``where`` and the key or slot.
    """
    check_texts(agent.name, texts, where, sources)
    return Prompt(agent, texts, where)


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
        if not isinstance(value, str | None):
            raise DataError(f"{where}: key '{key}' holds {short(value)}; put the text in quotes.")
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
