"""Bodies of OpenAI-style requests, read strictly: what cannot be done is refused by name."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rmas_train.engine.decoding import Decoding
from rmas_train.errors import ConfigError, DataError, did_you_mean
from rmas_train.serving.answerer import Answerer, control_of
from rmas_train.serving.options import MOST, whole_number
from rmas_train.serving.questions import check_question, question_of, read_decoding
from rmas_train.support.reading import short
from rmas_train.systems.base import SAMPLE


class RequestError(DataError):
    """A request that cannot be answered as it is.

    Attributes:
        status: of HTTP.
        param: the field, if it is about one.
        code: for programs, as OpenAI's.
    """

    def __init__(
        self, message: str, param: str | None = None, status: int = 400, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.param, self.status, self.code = param, status, code


@dataclass(frozen=True)
class Asked:
    """What a request asks for.

    Attributes:
        model: its name, as asked.
        control: that the name stands for.
        rows: one per answer; those of one question differ in ``SAMPLE``.
        is_chat: it has messages; else one or more prompts.
        stream: the answer as events.
        with_usage: a last event with the counts.
        decoding: how tokens are chosen.
    """

    model: str
    control: str | None
    rows: list[dict[str, Any]]
    is_chat: bool
    max_tokens: int | None
    stops: list[str]
    stream: bool
    with_usage: bool
    decoding: Decoding


READ = (
    *("model", "messages", "prompt", "max_tokens", "max_completion_tokens", "temperature"),
    *("top_p", "top_k", "seed", "n", "stop", "stream", "stream_options", "columns"),
)
NO_EFFECT = ("user", "metadata", "store")
MOST_CHOICES = 128
# Fields of what is not offered, and the values with which they ask for nothing.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "logprobs": (False, 0),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
}


def read_request(body: Any, is_chat: bool, answerer: Answerer) -> Asked:
    """A checked request.

    Raises:
        RequestError: names the field, its value, and what to do.
    """
    if not isinstance(body, dict):
        raise RequestError(f"the body is {short(body)}; send a JSON object.")
    _check_fields(body)
    model = body.get("model")
    if not isinstance(model, str):
        raise RequestError(f"model is {short(model)}; give one of /v1/models.", "model")
    control = _field("model", lambda: control_of(model, answerer), 404, "model_not_found")
    questions = _questions(body, is_chat)
    columns = _columns(body.get("columns"), answerer)
    count = _whole(body, "n", MOST_CHOICES) or 1
    usage = _flag(_mapping(body, "stream_options"), "include_usage", "stream_options")
    return Asked(
        model,
        control,
        [{"question": q, SAMPLE: i} | columns for q in questions for i in range(count)],
        is_chat,
        _max_tokens(body),
        _stops(body.get("stop")),
        _flag(body, "stream", "stream"),
        usage,
        _decoding(body),
    )


def _check_fields(body: Mapping[str, Any]) -> None:
    for key, value in body.items():
        if key in READ or key in NO_EFFECT or value is None:
            continue
        if key not in NEUTRAL:
            hint = did_you_mean(key, [*READ, *NEUTRAL])
            raise RequestError(f"unknown field {short(key)}. {hint}", key[:60])
        if value not in NEUTRAL[key]:
            only = " or ".join(map(repr, NEUTRAL[key]))
            raise RequestError(
                f"{key}={short(value)} is not offered; leave it out or give {only}.", key
            )


def _field(param: str, act: Any, status: int = 400, code: str | None = None) -> Any:
    """What ``act`` gives; its refusal is about this field."""
    try:
        return act()
    except (DataError, ConfigError) as error:
        raise RequestError(str(error), param, status, code) from error


def _questions(body: Mapping[str, Any], is_chat: bool) -> list[str]:
    own, other = ("messages", "prompt") if is_chat else ("prompt", "messages")
    if body.get(other) is not None:
        raise RequestError(f"{other} is of the other endpoint; give {own} here.", other)
    if is_chat:
        return [_field("messages", lambda: question_of(body.get("messages")))]
    prompt = body.get("prompt")
    if isinstance(prompt, list) and prompt:
        return [
            _field("prompt", lambda t=text, i=i: check_question(t, f"prompt[{i}]"))
            for i, text in enumerate(prompt)
        ]
    return [_field("prompt", lambda: check_question(prompt, "prompt"))]


def _columns(columns: Any, answerer: Answerer) -> dict[str, str]:
    """Columns of the row besides the question, which the prompts name."""
    if columns is None:
        return {}
    if not isinstance(columns, dict):
        raise RequestError(f"columns is {short(columns)}; give names with texts.", "columns")
    for name, text in columns.items():
        if name not in answerer.columns or name == "question":
            known = [c for c in answerer.columns if c != "question"]
            raise RequestError(
                f"columns has {short(name)}, which no prompt names. {did_you_mean(name, known)}",
                "columns",
            )
        if not isinstance(text, str):
            raise RequestError(f"columns.{name} is {short(text)}; give a text.", "columns")
    return columns


def _max_tokens(body: Mapping[str, Any]) -> int | None:
    return _whole(body, "max_completion_tokens", MOST) or _whole(body, "max_tokens", MOST)


def _whole(body: Mapping[str, Any], key: str, most: int) -> int | None:
    value = body.get(key)
    if value is None:
        return None
    if type(value) is not int:
        raise RequestError(f"{key} is {short(value)}; give a whole number.", key)
    number: int = _field(key, lambda: whole_number(key, value, 1, most))
    return number


def _decoding(body: Mapping[str, Any]) -> Decoding:
    """Without a seed, other numbers are drawn for each request."""
    try:
        return read_decoding(body, seed=secrets.randbits(32))
    except DataError as error:
        raise RequestError(str(error), str(error).partition("=")[0]) from error


def _stops(stop: Any) -> list[str]:
    stops = [stop] if isinstance(stop, str) else [] if stop is None else stop
    if not isinstance(stops, Sequence) or not all(isinstance(s, str) and s for s in stops):
        raise RequestError(f"stop is {short(stop)}; give a text, or a list of texts.", "stop")
    return list(stops)


def _mapping(body: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = body.get(key)
    if value is not None and not isinstance(value, dict):
        raise RequestError(f"{key} is {short(value)}; give named values.", key)
    return value or {}


def _flag(values: Mapping[str, Any], key: str, param: str) -> bool:
    value = values.get(key)
    if value is not None and not isinstance(value, bool):
        raise RequestError(f"{key} is {short(value)}; give true or false.", param)
    return bool(value)
