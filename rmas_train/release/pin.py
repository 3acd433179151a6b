"""Stage pin: ask the hub once for the commit of every model and data set in a config."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError

from rmas_train.compose.files import Pin, Pins, read_pins
from rmas_train.config import Config
from rmas_train.errors import ConfigError
from rmas_train.support.files import find_path, write_text
from rmas_train.support.hub_errors import HUB_ERRORS
from rmas_train.support.output import say

HEAD = (
    "# Written by stage=pin: the hub's commits, and the licences of their cards, on the day seen.\n"
)


def run_pin(config: Config) -> None:
    """Write ``config.pins``, if every commit was found; otherwise nothing is written."""
    path = Path(config.pins)
    found = find_pins(config)
    write_pins(path, found)
    for repository, pin in {**found.get("models", {}), **found.get("datasets", {})}.items():
        say(f"{repository}: {pin['revision']}, licence {pin['licence'] or 'not stated'}")
    say(f"written to {path}; runs from this folder use it (pins={path}).")


def find_pins(config: Config) -> Pins:
    """The present commit and licence of every hub id in ``config``.

    Raises:
        ConfigError: nothing to pin, no network, no such repository, or no access to it.
    """
    named = {one for a in config.agents.values() for one in (a.model, a.adapter) if one}
    models = {one for one in named if find_path(one) is None}
    if not models and not config.data.hub:
        raise ConfigError("stage=pin: this config names no hub id; there is nothing to pin.")
    api = HfApi()
    return {
        "models": _look(models, api.model_info),
        "datasets": _look(config.data.hub, api.dataset_info),
    }


def _look(repositories: Iterable[str], ask: Callable[[str], Any]) -> dict[str, Pin]:
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    found: dict[str, Pin] = {}
    for repository in sorted(repositories):
        try:
            info = ask(repository)
        except HUB_ERRORS as error:
            what = "not there, or private" if isinstance(error, RepositoryNotFoundError) else ""
            reason = what or (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ConfigError(
                f"{repository}: the hub gave no commit ({reason}); check the name, the network and "
                "your login (hf auth login), or give a folder."
            ) from error
        card = info.card_data or {}
        licence = card.get("license_name") or card.get("license")
        found[repository] = {
            "revision": str(info.sha),
            "licence": None if licence is None else str(licence),
            "seen": today,
        }
    return found


def write_pins(path: Path, found: Pins) -> None:
    """Add the found commits to the file; entries of other experiments stay."""
    before = read_pins(path)
    whole = {
        "models": {**before.get("models", {}), **found.get("models", {})},
        "datasets": {**before.get("datasets", {}), **found.get("datasets", {})},
    }
    write_text(path, HEAD + yaml.safe_dump(whole, sort_keys=True))
