"""What the server sends back, in the shapes that OpenAI's clients read."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from rmas_train.errors import UserError
from rmas_train.serving.answerer import Answerer, Reply, TooLongError
from rmas_train.serving.request_bodies import Asked, RequestError
from rmas_train.support.output import one_line


def error_body(error: UserError) -> tuple[int, dict[str, Any]]:
    """Status and body of a refusal."""
    status, param, code = 400, None, None
    if isinstance(error, RequestError):
        status, param, code = error.status, error.param, error.code
    elif isinstance(error, TooLongError):
        code = "context_length_exceeded"
    return status, plain_error(one_line(error), "invalid_request_error", param, code)


def plain_error(
    message: str, kind: str, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def usage(replies: Sequence[Reply]) -> dict[str, int]:
    """Counts over all answers of a request; ``latent_steps`` is our addition."""
    read, written = sum(r.prompt_tokens for r in replies), sum(r.tokens for r in replies)
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "latent_steps": sum(r.latent_steps for r in replies),
    }


def completion(asked: Asked, replies: Sequence[Reply], answerer: Answerer) -> dict[str, Any]:
    """The body of an answer."""
    kind = "chat.completion" if asked.is_chat else "text_completion"
    choices = [_choice(asked, i, reply) for i, reply in enumerate(replies)]
    return _head(asked, kind, answerer) | {"choices": choices, "usage": usage(replies)}


def events(asked: Asked, replies: Sequence[Reply], answerer: Answerer) -> Iterator[str]:
    """The same as server-sent events: each answer is one chunk, as it was written whole."""
    kind = "chat.completion.chunk" if asked.is_chat else "text_completion"
    head = _head(asked, kind, answerer)
    for i, reply in enumerate(replies):
        choice = _choice(asked, i, reply)
        if asked.is_chat:
            choice["delta"] = choice.pop("message")
        yield _event(head | {"choices": [choice]})
    if asked.with_usage:
        yield _event(head | {"choices": [], "usage": usage(replies)})
    yield "data: [DONE]\n\n"


def _head(asked: Asked, kind: str, answerer: Answerer) -> dict[str, Any]:
    return {
        "id": f"{'chatcmpl' if asked.is_chat else 'cmpl'}-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": asked.model,
        "system_fingerprint": answerer.fingerprint[:16],
    }


def _choice(asked: Asked, index: int, reply: Reply) -> dict[str, Any]:
    own: dict[str, Any] = {"text": reply.text}
    if asked.is_chat:
        own = {"message": {"role": "assistant", "content": reply.text}}
    reason = "length" if reply.is_full else "stop"
    return {"index": index, "logprobs": None, "finish_reason": reason} | own


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value)}\n\n"
