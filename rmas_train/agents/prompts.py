"""Prompts with slots: read from data files, put into the chat template, split, tokenised.

A prompt file is YAML with ``user`` and optionally ``system``, ``user_first`` (for a call that
receives no message) and ``columns`` (texts that depend on the row, see ``row_texts``).
``<<column>>`` stands for a column of the row, ``<<round>>`` for the number of the round,
``<<message:agent>>`` for the slot of that agent's message, ``<<task:key>>`` for a sentence.

The text is split at these marks *before* values are filled in. So a question that contains a mark,
or the text of a special token, stays ordinary text.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rmas_train.agents.agent import Agent
from rmas_train.agents.row_texts import RowText, read_row_texts
from rmas_train.errors import DataError, did_you_mean
from rmas_train.support.reading import parse_yaml, short

SINGLE = "single"  # prompt file of an agent that answers without the others
MIXTURE = "moa"  # of an agent that reads the answers of all: mixture of agents
TEXTGRAD = "textgrad"  # how a model judges an answer of `single`; its user's text alone
PROPOSALS = "proposals"  # the column in which it reads them
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
KEYS = ("system", "user", "user_first", "columns")


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
    """One agent's prompt; what stands around its text comes from the agent's chat template."""

    def __init__(self, agent: Agent, texts: Mapping[str, Any], file: str = "prompt") -> None:
        self.agent, self.file = agent, file
        self._computed = read_row_texts(texts, file)
        self._frame = agent.chat.prompt(texts.get("system"))
        self._user = split_marks(texts["user"] or "")
        first = texts.get("user_first")
        self._first = self._user if first is None else split_marks(first)

    @property
    def user(self) -> list[Part]:
        """The whole prompt of a call that receives messages."""
        return self._framed(self._user)

    @property
    def first(self) -> list[Part]:
        """The whole prompt of a call that receives none."""
        return self._framed(self._first)

    @property
    def slots(self) -> list[str]:
        return [p.value for p in self._user if p.kind == "slot"]

    @property
    def columns(self) -> set[str]:
        return _needed(self._user + self._first, self._computed)

    def rendered(self) -> dict[str, str]:
        """Its texts as the chat template writes them, with marks for what differs by row, how the
        agent's own text follows, and a hash of all these."""
        own = self.agent.chat.answer
        texts = {
            "user": _with_marks(self.user),
            "user_first": _with_marks(self.first),
            "own_text": f"{own.before}<<text>>{own.after}",
        }
        strips = [(f.strips.left, f.strips.right) for f in (self._frame, own)]
        whole = json.dumps([texts, strips], sort_keys=True)
        return texts | {"sha256": hashlib.sha256(whole.encode()).hexdigest()}

    def encode(
        self, rows: list[Mapping[str, Any]], round_: int, first: bool
    ) -> list[EncodedPrompt]:
        """Token ids of each row's prompt, up to the beginning of the agent's own text.

        Args:
            rows: columns of each problem.
            round_: number of the round, from 1.
            first: the call receives no message (prompt ``user_first``, without slots).
        """
        parts = self._first if first else self._user
        if first:  # no message arrives: leave the slots out
            parts = [p for p in parts if p.kind != "slot"]
        slots = [p.value for p in parts if p.kind == "slot"]
        runs = [_runs(self._fill(parts, row, round_)) for row in rows]
        columns = [tokenise_parts(self.agent, column) for column in zip(*runs, strict=True)]
        return [self._join(pieces, slots) for pieces in zip(*columns, strict=True)]

    def _join(self, pieces: tuple[list[int], ...], slots: list[str]) -> EncodedPrompt:
        ids, where = list(pieces[0]), []
        for name, piece in zip(slots, pieces[1:], strict=True):
            where.append((name, len(ids)))
            ids += piece
        return EncodedPrompt(ids, where)

    def _fill(self, parts: list[Part], row: Mapping[str, Any], round_: int) -> list[Part]:
        """The row's values in place, without the white space that the template strips."""
        values = {"round": str(round_)}
        named = {p.value for p in parts if p.kind == "column"}
        values |= {n: self._computed[n].text(row) for n in named & self._computed.keys()}
        filled = [
            Part("column", values[p.value] if p.value in values else str(row[p.value]))
            if p.kind == "column"
            else p
            for p in parts
        ]
        _strip(filled, range(len(filled)), self._frame.strips.from_left)
        _strip(filled, reversed(range(len(filled))), self._frame.strips.from_right)
        return self._framed(filled)

    def _framed(self, parts: list[Part]) -> list[Part]:
        around = (self._frame.before, self._frame.after)
        before, after = ([Part("text", text)] if text else [] for text in around)
        return [*before, *parts, *after]


def _strip(parts: list[Part], order: Iterable[int], strip: Callable[[str], str]) -> None:
    """Strip one end of a prompt's text, in place; a slot counts as something to read."""
    for i in order:
        if parts[i].kind == "slot":
            return
        parts[i] = replace(parts[i], value=strip(parts[i].value))
        if parts[i].value:
            return


def _runs(parts: list[Part]) -> list[list[Part]]:
    """What stands before, between and after the slots."""
    runs: list[list[Part]] = [[]]
    for part in parts:
        if part.kind == "slot":
            runs.append([])
        else:
            runs[-1].append(part)
    return runs


def _with_marks(parts: list[Part]) -> str:
    marks = {"text": "{}", "column": "<<{}>>", "slot": "<<message:{}>>"}
    return "".join(marks[p.kind].format(p.value) for p in parts)


def tokenise_parts(agent: Agent, rows: Sequence[list[Part]]) -> list[list[int]]:
    """Ids of texts in parts; in a row's values, a special token's text is ordinary text.

    A text is tokenised whole, and piece by piece if its values hold a special token's text.
    """
    ids = tokenise(agent, ["".join(p.value for p in parts) for parts in rows])
    for i, parts in enumerate(rows):
        if any(p.kind == "column" and agent.special.search(p.value) for p in parts):
            ids[i] = []
            for p in parts:
                ids[i] += tokenise(agent, [p.value], plain=p.kind == "column")[0]
    return ids


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
    return _needed(parts, read_row_texts(texts))


def _needed(parts: Sequence[Part], computed: Mapping[str, RowText]) -> set[str]:
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


def tokenise(agent: Agent, texts: list[str], plain: bool = False) -> list[list[int]]:
    """Ids without added special tokens; ``plain``: a special token's text is ordinary text."""
    encoded = agent.tokenizer(texts, add_special_tokens=False, split_special_tokens=plain)
    return [list(ids) for ids in encoded["input_ids"]]


def tokenise_whole(agent: Agent, texts: list[str], ended: bool = True) -> list[list[int]]:
    """Ids of an agent's own texts, from the end of its prompt to the end of its turn.

    They are what its chat template writes there, as in the release's training: what it puts before
    and after the text (``<|im_end|>`` and a new line, say), without the white space that it strips.
    Where it marks no end, the end-of-text token stands there.

    Args:
        agent: whose texts they are.
        texts: without what the template puts around them.
        ended: with what ends the turn; False: up to the last token of the text.
    """
    frame = agent.chat.answer
    around = (frame.before, frame.after if ended else "")
    before, after = ([Part("text", x)] if x else [] for x in around)
    stripped = [frame.strips.from_left(frame.strips.from_right(text)) for text in texts]
    rows = [[*before, Part("column", text), *after] for text in stripped]
    end = [] if agent.ends_in_template or not ended else [agent.end_id]
    return [ids + end for ids in tokenise_parts(agent, rows)]


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
