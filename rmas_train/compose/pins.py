"""Pins: the hub's commits of models and data sets, found once and kept in a file.

``stage=pin`` writes ``pins.yaml``; every later run gives these commits to whatever names a hub id
without a revision, and its resolved config shows them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypedDict, cast

from rmas_train.config import Config
from rmas_train.errors import ConfigError
from rmas_train.support.reading import check_type, parse_yaml

COMMIT = re.compile(r"[0-9a-f]{40}")


class Pin(TypedDict):
    """What was seen of a hub repository: its commit and its card's licence, on which day."""

    revision: str
    licence: str | None
    seen: str


class Pins(TypedDict, total=False):
    models: dict[str, Pin]
    datasets: dict[str, Pin]


def read_pins(path: Path) -> Pins:
    """What a pins file says; nothing if there is none.

    Raises:
        ConfigError: the file is malformed.
    """
    if not path.is_file():
        return {}
    try:
        pins = parse_yaml(path.read_text(encoding="utf-8")) or {}
        check_type(pins, Pins, "")
        for repository, pin in [*pins.get("models", {}).items(), *pins.get("datasets", {}).items()]:
            if not COMMIT.fullmatch(pin["revision"]):
                raise ValueError(f"{repository}: revision {pin['revision']!r} is no commit")
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{path}: {error}; mend it, or make it again with stage=pin.") from error
    return cast(Pins, pins)


def apply_pins(config: Config) -> Config:
    """Commits for the hub ids of ``config`` that have no revision; in place."""
    pins = read_pins(Path(config.pins))
    for agent in config.agents.values():
        if agent.revision is None and agent.model in pins.get("models", {}):
            agent.revision = pins["models"][agent.model]["revision"]
    for repository, revision in config.data.hub.items():
        if revision is None and repository in pins.get("datasets", {}):
            config.data.hub[repository] = pins["datasets"][repository]["revision"]
    return config
