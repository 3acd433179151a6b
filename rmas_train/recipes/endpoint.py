"""A writer behind an OpenAI-compatible endpoint: your own server, or a provider's."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rmas_train.errors import ConfigError, DataError
from rmas_train.recipes.writing import (
    CUT,
    EMPTY,
    REFUSED,
    TOO_LONG,
    Request,
    WriterOptions,
    Written,
    visible,
)
from rmas_train.support.output import one_line, redacted

if TYPE_CHECKING:
    from openai import BadRequestError

LONG_SIGNS = ("context_length", "context length", "maximum context", "too long", "max_model_len")


class EndpointWriter:
    """Chat completions, several at the same time; the client retries when the server is busy.

    The key is read from the environment variable ``key_env``. It and the prompts are sent only to
    the URL: redirects are refused.
    """

    batch_size = 1  # requests do not touch each other
    # For messages: the options that name address and model, and what is not lost.
    option, model_option, kept = "writer", "writer_model", "finished texts are kept"

    def __init__(self, options: WriterOptions) -> None:
        try:
            import openai
        except ImportError as error:
            raise ConfigError(
                f"{self.option}={redacted(options.writer)} needs the openai client; install it: "
                "pip install 'rmas_train[endpoint]'."
            ) from error
        if not options.model:
            raise ConfigError(
                f"{self.option}={redacted(options.writer)} has models with names; give "
                f"{self.model_option}."
            )
        self.options, self.parallel = options, options.parallel
        self._client = openai.OpenAI(
            base_url=options.writer,
            api_key=os.environ.get(options.key_env) or "none",
            max_retries=options.retries,
            timeout=options.timeout,
            http_client=openai.DefaultHttpxClient(follow_redirects=False),
        )

    def describe(self) -> dict[str, Any]:
        return {
            "kind": "endpoint",
            "url": redacted(self.options.writer),
            "model": self.options.model,
            "revision": self.options.revision,
            "revision_note": "as given; an endpoint does not prove which weights it serves",
            "temperature": self.options.temperature,
            "max_new_tokens": self.options.max_new_tokens,
            "seed": self.options.seed,
        }

    def write(self, requests: Sequence[Request], seed: int) -> list[Written]:
        return [self._ask(request, seed) for request in requests]

    def _ask(self, request: Request, seed: int) -> Written:
        from openai import BadRequestError, OpenAIError

        system = [{"role": "system", "content": request.system}] if request.system else []
        messages: Any = [*system, {"role": "user", "content": request.user}]
        heat = request.temperature
        try:
            answer = self._client.chat.completions.create(
                model=self.options.model or "",
                messages=messages,
                temperature=self.options.temperature if heat is None else heat,
                max_tokens=self.options.max_new_tokens,
                seed=(seed + self.options.seed) % 2**31,
            )
        except BadRequestError as error:
            if _is_too_long(error):
                return Written(None, TOO_LONG)
            raise self._failure(error) from error
        except OpenAIError as error:
            raise self._failure(error) from error
        return self._read(answer)

    def _read(self, answer: Any) -> Written:
        if not getattr(answer, "choices", None):
            return Written(None, EMPTY)
        choice = answer.choices[0]
        if choice.finish_reason == "length":
            return Written(None, CUT)
        if choice.finish_reason == "content_filter" or getattr(choice.message, "refusal", None):
            return Written(None, REFUSED)
        return visible(choice.message.content or "")

    def _failure(self, error: Exception) -> DataError:
        status = getattr(error, "status_code", None)
        if status is not None and 300 <= status < 400:
            return self._redirected(error, status)
        hint = {
            401: f"set the environment variable {self.options.key_env}",
            403: f"check the rights of the key in {self.options.key_env}",
            404: f"check the URL (it usually ends with /v1) and {self.model_option}",
        }.get(status or 0, "check that the server runs")
        return DataError(
            f"{self.option}={redacted(self.options.writer)}: {type(error).__name__} "
            f"({one_line(error)}); {hint}, and start again: {self.kept}."
        )

    def _redirected(self, error: Any, status: int) -> DataError:
        """The prompts would go to an address that nobody has typed."""
        target = error.response.headers.get("location", "no address")
        return DataError(
            f"{self.option}={redacted(self.options.writer)}: answers {status}, a redirect to "
            f"{one_line(target)}, which is not followed; if you trust that address, give it as "
            f"{self.option}, and start again: {self.kept}."
        )


def _is_too_long(error: BadRequestError) -> bool:
    text = f"{error.code} {error}".casefold()
    return any(sign in text for sign in LONG_SIGNS)
