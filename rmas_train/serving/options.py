"""What may be typed about a system that is served; the same for the server and both harnesses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from rmas_train.errors import ConfigError, did_you_mean
from rmas_train.support.reading import short

AGENT = "agents."  # agents.<name>=<folder or hub id>


@dataclass(frozen=True)
class SystemOptions:
    """Which system, and how it answers.

    Attributes:
        run: run folder.
        links: links folder or hub id, in place of a run folder.
        revision: of a hub id.
        agents: name -> folder or hub id, where the agents are elsewhere than in training.
        device: ``auto``: a GPU if there is one.
        rounds, latent_length, max_new_tokens: None: as the links say.
        name: of the model; None: the name of the run folder.
    """

    run: str | None = None
    links: str | None = None
    revision: str | None = None
    agents: Mapping[str, str] = field(default_factory=dict)
    device: str = "auto"
    rounds: int | None = None
    latent_length: int | None = None
    max_new_tokens: int | None = None
    name: str | None = None


LEAST = {"rounds": 1, "latent_length": 0, "max_new_tokens": 1}
MOST = 10**6
KNOWN = [f.name for f in fields(SystemOptions) if f.name != "agents"]


def read_options(given: Mapping[str, Any]) -> SystemOptions:
    """Options from what was typed; a harness may have made numbers of some texts.

    Raises:
        ConfigError: an unknown option, a bad value, or neither ``run`` nor ``links``.
    """
    found: dict[str, Any] = {"agents": {}}
    for key, value in given.items():
        if key.startswith(AGENT):
            found["agents"][key.removeprefix(AGENT)] = _text(key, value)
        elif key in LEAST:
            found[key] = whole_number(key, value, LEAST[key], MOST)
        elif key in KNOWN:
            found[key] = _text(key, value)
        else:
            hint = did_you_mean(key, [*KNOWN, f"{AGENT}<name>"])
            raise ConfigError(f"Unknown option '{key}'. {hint}")
    options = SystemOptions(**found)
    if (options.run is None) == (options.links is None):
        seen = f"run={options.run} and links={options.links}"
        both = seen if options.run else "neither run nor links is given"
        raise ConfigError(f"{both}; give run=<run folder>, or links=<links folder or hub id>.")
    return options


def whole_number(key: str, value: Any, least: int, most: int) -> int:
    """A whole number, or the text of one.

    Raises:
        ConfigError: another value, or out of range.
    """
    number = value
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        number = int(value)
    if type(number) is not int or not least <= number <= most:
        raise ConfigError(f"{key}={short(value)}: give a whole number from {least} to {most}.")
    return number


def _text(key: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
        raise ConfigError(f"{key}={short(value)}: give a text.")
    return str(value)
