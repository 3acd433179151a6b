"""From what other programs send to one question: chat messages to a text, stops to a cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rmas_train.errors import DataError
from rmas_train.support.reading import short

FIXED = "the agents' prompts are fixed, as in training"


def question_of(messages: Any) -> str:
    """The question in a list of chat messages: the text of its one user message.

    Agents read the prompts that their links were trained with. There is no place in them for a
    system text or earlier turns, and to leave those out silently would answer another question.

    Raises:
        DataError: no message, another role, more than one message, or something else than text.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise DataError(f"messages is {short(messages)}; give a list with one user message.")
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise DataError(f"messages[{i}] is {short(message)}; give role and content.")
        if message.get("role") in ("system", "developer"):
            raise DataError(
                f"messages[{i}] has role '{message['role']}', but {FIXED}, and have no place for "
                "it; leave it out, or put its text into the user message."
            )
    if len(messages) > 1:
        raise DataError(
            f"messages has {len(messages)} messages, but {FIXED}, and have no place for earlier "
            "turns; send one user message."
        )
    if messages[0].get("role") != "user":
        raise DataError(
            f"messages[0] has role {short(messages[0].get('role'))}; give one user message."
        )
    return check_question(_content(messages[0].get("content")), "messages[0].content")


def _content(content: Any) -> Any:
    """The text of a message that may be a list of parts."""
    if not isinstance(content, list):
        return content
    for i, part in enumerate(content):
        is_text = isinstance(part, Mapping) and part.get("type") in ("text", "input_text")
        if not is_text or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, Mapping) else part
            raise DataError(f"messages[0].content[{i}] is {short(kind)}; agents read text only.")
    return "".join(part["text"] for part in content)


def check_question(text: Any, where: str) -> str:
    """A text that is not blank.

    Raises:
        DataError: it is something else.
    """
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{where} is {short(text)}; give the question as a text.")
    return text


def cut(text: str, stops: Sequence[str]) -> str:
    """The text up to the first of these; all of it where none occurs."""
    places = [text.find(stop) for stop in stops if stop and stop in text]
    return text[: min(places)] if places else text


def check_greedy(temperature: Any, where: str = "temperature") -> None:
    """Answers are decoded greedily.

    Raises:
        DataError: the temperature is not 0 or absent.
    """
    is_number = isinstance(temperature, int | float) and not isinstance(temperature, bool)
    if temperature is not None and not (is_number and temperature == 0):
        raise DataError(
            f"{where}={short(temperature)}: answers are decoded greedily; leave it out or give 0."
        )
