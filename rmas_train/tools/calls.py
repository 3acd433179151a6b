"""The protocol of tool calls: what the decoder writes, when it stops, and what it reads next.

A call is ``<name>input</name>`` in the decoder's text. Generation stops after the token that
completes the closing tag. The decoder reads the result as plain text and continues to write.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from rmas_train.engine.interrupt import More, Reply

NAMES = ("python", "search")
OPENING = re.compile(rf"<({'|'.join(NAMES)})>")


class Tool(Protocol):
    """What is called by its name."""

    @property
    def name(self) -> str: ...

    def __call__(self, text: str) -> str:
        """The result, or a text that says why there is none."""
        ...


@dataclass(frozen=True)
class ToolCall:
    """One call in an answer.

    Attributes:
        name: of the tool.
        input: the text between the tags.
        result: the text that the decoder read.
        seconds: time that the tool took.
        refused: the limit of calls was reached before, so nothing was run.
    """

    name: str
    input: str
    result: str
    seconds: float
    refused: bool = False


def find_call(text: str) -> tuple[int, int, str, str] | None:
    """Beginning, end, name and input of the first complete call.

    After an opening tag only its own closing tag counts, so a program may contain any other tag.
    Other names, and closing tags without an opening tag, are ordinary text.
    """
    opening = OPENING.search(text)
    if opening is None:
        return None
    closing = f"</{opening[1]}>"
    end = text.find(closing, opening.end())
    if end < 0:
        return None
    return opening.start(), end + len(closing), opening[1], text[opening.end() : end]


def cut(text: str, most: int) -> str:
    """At most this many characters: the beginning, the end, and how many are missing in between."""
    if len(text) <= most:
        return text
    gap = "\n[{} characters left out]\n"
    room = max(0, most - len(gap) - len(str(len(text))))
    head, tail = (room + 1) // 2, room // 2
    middle = gap.format(len(text) - head - tail)
    return (text[:head] + middle + text[len(text) - tail :])[:most]


@dataclass(frozen=True)
class SecondTry:
    """A text in which the grader finds no answer goes on, once.

    The release does so with every answer that it cannot read (method of its evaluation script).

    Attributes:
        begins: what the decoder reads after its own text; part of the answer.
        tokens: that it may write then.
        read: (row, text) -> the answer that the grader finds; None: none.
    """

    begins: str
    tokens: int
    read: Callable[[Mapping[str, Any], str], str | None]


@dataclass
class Session:
    """What happens in one answer; an ``engine.interrupt.Interrupt``.

    Attributes:
        tools: tools by name; a known name that is missing here is off.
        max_calls: number of calls that are run; the next one is refused, once.
        result_chars: longest result that the decoder reads, in characters.
        row: that is answered.
        second_try: None: a text that has ended stays as it is.
        calls: the calls so far, including the refused one.
        retried: the second try was needed.
    """

    tools: Mapping[str, Tool]
    max_calls: int
    result_chars: int
    row: Mapping[str, Any] = field(default_factory=dict)
    second_try: SecondTry | None = None
    calls: list[ToolCall] = field(default_factory=list)
    retried: bool = False

    ends = ">"

    def is_due(self, text: str) -> bool:
        """Whether the text since the last result contains a call that must be run."""
        may_call = bool(self.tools) and len(self.calls) <= self.max_calls
        return may_call and find_call(text) is not None

    def reply(self, text: str) -> Reply:
        """Run that call."""
        found = find_call(text)
        assert found is not None
        begin, end, name, given = found
        began, refused = time.perf_counter(), len(self.calls) == self.max_calls
        result = self._refusal() if refused else self._run(name, given)
        result = cut(result, self.result_chars)
        self.calls.append(ToolCall(name, given, result, time.perf_counter() - began, refused))
        return Reply(text[:begin] + "\n" + text[end:], f"<result>\n{result}\n</result>\n")

    def at_end(self, text: str) -> More | None:
        """The second try, unless it was made or the grader finds an answer."""
        again = self.second_try
        if again is None or self.retried or again.read(self.row, text) is not None:
            return None
        self.retried = True
        return More(again.begins, again.tokens)

    def _refusal(self) -> str:
        return (
            f"refused: at most {self.max_calls} calls in an answer. Answer without further calls."
        )

    def _run(self, name: str, given: str) -> str:
        if name not in self.tools:
            return f"error: the tool {name} is off. Tools that are on: {', '.join(self.tools)}."
        if not given.strip():
            return f"error: the call of {name} is empty."
        return self.tools[name](given)


@dataclass(frozen=True)
class Toolbox:
    """What may happen in the answers of a run: tools, a second try. Each has its own session."""

    tools: Mapping[str, Tool] = field(default_factory=dict)
    max_calls: int = 5
    result_chars: int = 6000
    second_try: SecondTry | None = None

    def open(self, row: Mapping[str, Any]) -> Session:
        return Session(self.tools, self.max_calls, self.result_chars, row, self.second_try)
