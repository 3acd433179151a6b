"""From what other programs send to one question, and how its answer is written: chat messages to a
text, stops to a cut, a temperature to a rule of decoding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rmas_train.engine.decoding import Decoding
from rmas_train.errors import DataError
from rmas_train.support.reading import short

MOST_TEMPERATURE = 100
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


def read_decoding(asked: Mapping[str, Any], seed: int) -> Decoding:
    """How answers are written: with a ``temperature`` above 0 tokens are drawn, from the likeliest
    ``top_k`` and ``top_p``, by random numbers of ``seed``; else the likeliest token is written, and
    the others change nothing.

    Args:
        asked: these fields; what is None counts as absent.
        seed: where none is asked for.

    Raises:
        DataError: names the field and its value.
    """
    temperature = _number(asked, "temperature", 0.0, 0, MOST_TEMPERATURE)
    if not temperature:
        return Decoding()
    top_p = _number(asked, "top_p", 1.0, 0, 1)
    if not top_p:
        raise DataError("top_p=0: give a number above 0, and at most 1.")
    for key in ("top_k", "seed"):
        if asked.get(key) is not None and type(asked[key]) is not int:
            raise DataError(f"{key}={short(asked[key])}: give a whole number.")
    top_k, own = asked.get("top_k"), asked.get("seed")
    if top_k is not None and top_k < 1:
        raise DataError(f"top_k={top_k}: give 1 or more, or leave it out for all tokens.")
    return Decoding("plain", temperature, top_k, top_p, seed if own is None else own)


def _number(asked: Mapping[str, Any], key: str, default: float, least: float, most: float) -> float:
    value = default if asked.get(key) is None else asked[key]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (is_number and least <= value <= most):
        raise DataError(f"{key}={short(value)}: give a number from {least} to {most}.")
    return float(value)
