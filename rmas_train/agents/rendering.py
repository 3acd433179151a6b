"""Running a chat template: with a time limit, at a fixed date, and errors in one line.

A template is a program that comes with a model. It may be wrong, never end, or print today's date.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from types import FrameType
from typing import Any, Self

from jinja2.exceptions import TemplateError
from transformers.utils import chat_template_utils

from rmas_train.agents.builtin_templates import BUILT_IN, TEMPLATES
from rmas_train.errors import AgentError, did_you_mean
from rmas_train.support.reading import short

SECONDS = 5.0  # that one rendering may take
LONGEST = 1_000_000  # characters of a rendering
# The date that every template sees, so that a prompt is the same tomorrow. It is the one that
# Llama 3.2's template falls back to; `template.date_string` gives that template another one.
DATE = (2024, 7, 26)
ARGUMENTS = {"enable_thinking": False}  # where nothing else is asked for; the release's choice too
TAKEN = {
    *("messages", "conversation", "tools", "documents", "chat_template", "tokenize", "padding"),
    *("add_generation_prompt", "continue_final_message", "return_assistant_tokens_mask"),
    *("sanitize_control_tokens", "truncation", "max_length", "return_tensors", "return_dict"),
    "tokenizer_kwargs",
}

Turn = Mapping[str, str]


class FixedDate(datetime):
    """What the library asks for the date that its ``strftime_now`` prints."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:  # noqa: ARG003
        return cls(*DATE)


class TooSlowError(Exception):
    """The code ran longer than its limit."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Stop the block's calls of Python code after so many seconds, in any thread.

    The clock is read at every line that they run. Signals would work in the main thread alone.

    Raises:
        TooSlowError: the time is over.
    """
    end = time.monotonic() + seconds

    def look(frame: FrameType, event: str, argument: Any) -> Any:  # noqa: ARG001
        if time.monotonic() > end:
            raise TooSlowError(f"{seconds:.0f} s are over")
        return look

    before = sys.gettrace()
    sys.settrace(look)
    try:
        yield
    finally:
        sys.settrace(before)


@contextmanager
def fixed_date() -> Iterator[None]:
    before = chat_template_utils.datetime
    chat_template_utils.datetime = FixedDate  # type: ignore[misc]
    try:
        yield
    finally:
        chat_template_utils.datetime = before  # type: ignore[misc]


class NoSuchTurnError(Exception):
    """The template refuses these turns; many know no system turn."""


@dataclass(frozen=True)
class Renderer:
    """One tokenizer's chat template, or a built-in one.

    Attributes:
        tokenizer: whose special tokens the template writes.
        builtin: one of ``BUILT_IN``; None: the tokenizer's own.
        arguments: what the template gets, beside ``ARGUMENTS``.
        where: names the model in errors.
        option: names the agent's option in errors.
    """

    tokenizer: Any
    builtin: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    where: str = "the model"
    option: str = "agents.<name>.template"

    def render(self, turns: Sequence[Turn], generation_prompt: bool) -> str:
        """A chat as the template writes it.

        Raises:
            NoSuchTurnError: the template says that it does not take these turns.
            AgentError: it is not valid, fails, writes too much, or does not end.
        """
        own = {"chat_template": BUILT_IN[self.builtin][0]} if self.builtin else {}
        try:
            with time_limit(SECONDS), fixed_date():
                text: str = self.tokenizer.apply_chat_template(
                    [dict(turn) for turn in turns],
                    tokenize=False,
                    add_generation_prompt=generation_prompt,
                    **own,
                    **ARGUMENTS | dict(self.arguments),
                )
        except TooSlowError as error:
            raise self.error(f"does not end within {SECONDS:.0f} s") from error
        except Exception as error:  # whatever the template's own code raises
            if type(error) is TemplateError:  # it called raise_exception
                raise NoSuchTurnError(short(str(error))) from error
            raise self.error(f"fails ({_reason(error)})") from error
        if len(text) > LONGEST:
            raise self.error(f"writes {len(text)} characters for a short text")
        return text

    def error(self, what: str) -> AgentError:
        """An error about the template, with what to do."""
        return AgentError(
            f"{self.where}: its chat template {what}; mend chat_template.jinja in its folder, or "
            f"set {self.option} to one of {', '.join(TEMPLATES)}."
        )

    def check(self) -> None:
        """The tokenizer knows a built-in template's marks, and the template the arguments' names.

        Raises:
            AgentError: names the mark or the argument.
        """
        source, marks = BUILT_IN[self.builtin] if self.builtin else (self._own_source(), ())
        vocabulary = self.tokenizer.get_vocab() if marks else {}
        for mark in marks:
            if mark not in vocabulary:
                raise AgentError(
                    f"{self.option}={self.builtin}: the tokenizer of {self.where} has no token "
                    f"{mark}; choose another of {', '.join(TEMPLATES)}."
                )
        for name in self.arguments:
            if name in TAKEN or name not in source:
                raise AgentError(
                    f"{self.option}.{name}: the chat template of {self.where} has no variable "
                    f"{name} to set; leave it out. {self._near(name, source)}".rstrip()
                )

    def _own_source(self) -> str:
        """The text of the tokenizer's own template; of several, of the one that chats use."""
        own = self.tokenizer.chat_template
        return str(own.get("default", "") if isinstance(own, dict) else own)

    def _near(self, name: str, source: str) -> str:
        known = [n for n in ("enable_thinking", "date_string", "reasoning_effort") if n in source]
        return did_you_mean(name, known) if known else ""


def _reason(error: Exception) -> str:
    """Its message in short, with the template's line where it is known."""
    line = getattr(error, "lineno", None)
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"line {line}: {reason}" if line else reason
