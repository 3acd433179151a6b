"""Requests to a writer of role texts, its options, and the outcome of a request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rmas_train.errors import ConfigError

OPENS, CLOSES = "<think>", "</think>"
# Reasons under which a request is dropped.
TOO_LONG, CUT, EMPTY, REFUSED = "prompt_too_long", "text_cut", "text_empty", "text_refused"


@dataclass(frozen=True)
class Request:
    """A request to a writer.

    Attributes:
        attempt: a number that makes repeats of the same request different.
        temperature: replaces the writer's own; the same for all requests of one call.
    """

    user: str
    system: str | None = None
    attempt: int = 0
    temperature: float | None = None


@dataclass(frozen=True)
class Written:
    """The outcome of a request: a complete text, or the reason why there is none."""

    text: str | None
    dropped: str | None = None


@dataclass(frozen=True)
class WriterOptions:
    """How a writer is loaded and how it writes; these are options of a recipe."""

    writer: str
    model: str | None = None  # the endpoint's name for it
    revision: str | None = None
    dtype: str = "bfloat16"
    temperature: float = 0.0
    max_new_tokens: int = 1024
    max_prompt_tokens: int = 8192
    batch_size: int = 8
    parallel: int = 8
    key_env: str = "WRITER_API_KEY"
    timeout: float = 600.0
    retries: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "max_prompt_tokens", "batch_size", "parallel"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: give 1 or more.")
        if not 0 <= self.temperature <= 2 or self.retries < 0 or not self.timeout > 0:
            raise ConfigError(
                f"temperature={self.temperature} retries={self.retries} timeout={self.timeout}: "
                "give a temperature of 0 to 2, 0 or more retries and a time above 0 seconds."
            )


class Writer(Protocol):
    """An object that answers requests.

    Attributes:
        batch_size: requests that are sent together; 1 if they do not affect each other.
        parallel: number of such units at the same time.
    """

    batch_size: int
    parallel: int

    def describe(self) -> dict[str, Any]:
        """Everything that the writer's texts depend on, as plain data without secrets."""
        ...

    def write(self, requests: Sequence[Request], seed: int) -> list[Written]:
        """The outcome of each request; ``seed`` is the seed of random draws."""
        ...


def visible(text: str) -> Written:
    """A text without the thoughts that a reasoning model writes before it.

    Some templates open the thought themselves; then the text has only its end mark.
    """
    thinks = text.lstrip().startswith(OPENS)
    if CLOSES in text and (thinks or OPENS not in text):
        text = text.partition(CLOSES)[2]
    elif thinks:
        return Written(None, CUT)  # it never came to an end
    return Written(text.strip()) if text.strip() else Written(None, EMPTY)
