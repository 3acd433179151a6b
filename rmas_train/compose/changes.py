"""What a config has otherwise than its experiment: what a reader of the terminal needs to know."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from rmas_train.compose.compose import compose_groups
from rmas_train.compose.nodes import REFUSALS, leaves, to_dict, with_defaults
from rmas_train.compose.renamed import rename_values
from rmas_train.compose.saved import saved_run, saved_values
from rmas_train.compose.typed import Typed, normalise
from rmas_train.config import AgentConfig, Config, shown
from rmas_train.errors import ConfigError, DeprecatedOptionWarning

ABSENT = object()


def changes(asked: Typed, config: Config) -> list[str]:
    """Lines on what differs from the experiment, or from the run that is evaluated."""
    with warnings.catch_warnings():  # former names were told of when the config was composed
        warnings.simplefilter("ignore", DeprecatedOptionWarning)
        return _changes(asked, config)


def _changes(asked: Typed, config: Config) -> list[str]:
    overrides = normalise(asked.overrides, asked.folders)
    saved = saved_run(overrides)
    if saved is not None:
        before = with_defaults(saved_values(saved))
        return [f"config: {saved}", *_differences(before, to_dict(config), str(saved.parent))]
    alone, chosen = compose_groups(asked)
    experiment = chosen.choices["experiment"]
    groups = [
        f"changed: {group}={choice} (experiment: {alone.choices.get(group, 'none')})"
        for group, choice in chosen.choices.items()
        if alone.choices.get(group) != choice
    ]
    try:
        before = with_defaults(rename_values(chosen.options, "a config file"))
    except (ConfigError, *REFUSALS):  # the experiment works only with what was typed on top
        return [f"experiment: {experiment}", *groups]
    options = _differences(before, to_dict(config), "experiment")
    return [f"experiment: {experiment}", *groups, *options]


def full_config(config: Config) -> str:
    """Where all of it can be read."""
    if config.stage in ("report", "pin"):
        return "full config: the same command with --show"
    stage = "<stage>" if config.stage == "pipeline" else config.stage
    return f"full config: {config.run_dir}/{stage}/config.yaml, or the same command with --show"


def _differences(before: Mapping[str, Any], after: Mapping[str, Any], whose: str) -> Iterator[str]:
    """A line for each option; of an agent that is new, those that are not at their defaults."""
    old = dict(leaves(before))
    new_agent = asdict(AgentConfig())
    for key, value in leaves(after):
        was = old.get(key, ABSENT)
        name = key.rsplit(".", 1)[-1]
        if was is ABSENT and key.startswith("agents.") and value == new_agent.get(name, ABSENT):
            continue
        if was != value:
            before_it = "not set" if was is ABSENT else shown(was)
            yield f"changed: {key}={shown(value)} ({whose}: {before_it})"
