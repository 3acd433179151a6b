"""What an option is, and the checks that all of them share."""

from __future__ import annotations

from dataclasses import field
from reprlib import repr as short
from typing import Any

import yaml

from rmas_train.errors import ConfigError, did_you_mean

MOST_ROUNDS, MOST_LENGTH, MOST_STEPS, MOST_ROWS = 10_000, 1_000_000, 10_000_000, 1_000_000


def option(default: Any, doc: str) -> Any:
    """A dataclass field with its explanation, which ``--help`` prints."""
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata={"doc": doc})
    return field(default=default, metadata={"doc": doc})


def shown(value: Any) -> str:
    """A value on one line, as YAML has it and as it can be typed."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    return str(text).removesuffix("...\n").strip()


def check_choice(key: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"{key}={value}: no such choice. {did_you_mean(str(value), known)}")


def check_least(key: str, value: float | None, least: float, most: float = 1e9) -> None:
    """In range; what is larger than ``most`` could only end in a full memory or never."""
    if value is not None and not value >= least:
        raise ConfigError(f"{key}={value} is too small; set {key} to {least} or more.")
    if value is not None and not value <= most:
        raise ConfigError(f"{key}={short(value)} is too large; set {key} to {most:.0f} or less.")
