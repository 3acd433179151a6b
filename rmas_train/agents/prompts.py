"""A prompt with slots: put into the chat template, filled with a row's values, tokenised.

The text is split at its marks (``prompt_files``) *before* values are filled in. So a question that
contains a mark, or the text of a special token, stays ordinary text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rmas_train.agents.agent import Agent
from rmas_train.agents.prompt_files import Part, check_texts, needed_columns, split_marks
from rmas_train.agents.row_texts import read_row_texts


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
        return needed_columns(self._user + self._first, self._computed)

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
