"""From the command line, YAML files and dicts to one ``Config``.

YAML is data: there is no ``_target_``, nothing in a config is ever called.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rmas_train.compose.composing import Composed, composed
from rmas_train.compose.explain import explain
from rmas_train.compose.files import Given, choices_of, given, read_file
from rmas_train.compose.folders import groups
from rmas_train.compose.nodes import REFUSALS, to_config
from rmas_train.compose.pins import apply_pins
from rmas_train.compose.plugins import import_plugins
from rmas_train.compose.renamed import key_of, rename_values
from rmas_train.compose.saved import compose_on, saved_run
from rmas_train.compose.typed import Typed, normalise, read_typed
from rmas_train.config import Config
from rmas_train.errors import ConfigError, did_you_mean


def compose(typed: Sequence[str]) -> Config:
    """The config of one run.

    Args:
        typed: ``key=value``, ``group=choice``, ``--config FILE``, ``--config-dir DIR``, as on the
            command line.

    Raises:
        ConfigError: unknown key or group, or a value that cannot work; one line.
    """
    asked = read_typed(typed)
    return _compose(asked, [read_file(path, asked.folders) for path in asked.files])


def config_from(
    source: Config | Mapping[str, Any] | Sequence[str] | str | os.PathLike[str],
) -> Config:
    """The config that a Python caller means.

    Args:
        source: a ``Config`` (taken as it is); the path of a YAML file, or a dict, of options as
            nested keys; or a list of what would be typed. A file or dict may name group choices
            (``experiment: mixture``, ``links: released``). Without an experiment it stands on
            ``none``, and its ``agents``, ``topology`` and ``data`` are then all there is of them.

    Raises:
        ConfigError: an unknown key, or a value that cannot work; names the file.
    """
    if isinstance(source, Config):
        import_plugins(source.plugins)
        return source
    if isinstance(source, Mapping):
        return _compose(Typed([]), [given(source, "config")])
    if isinstance(source, str | os.PathLike):
        return compose([f"--config={os.fspath(source)}"])
    return compose(source)


def compose_groups(asked: Typed) -> tuple[Composed, Composed]:
    """The experiment alone, and with the group choices of a command; neither is checked."""
    overrides = normalise(asked.overrides, asked.folders)
    files = [read_file(path, asked.folders) for path in asked.files]
    known = groups(asked.folders)
    chosen = [*choices_of(overrides, files), *(o for o in overrides if key_of(o) in known)]
    first = [o for o in chosen if key_of(o) == "experiment"]
    return composed(first, asked.folders), composed(chosen, asked.folders)


def _compose(asked: Typed, files: list[Given]) -> Config:
    overrides = normalise(asked.overrides, asked.folders)
    saved = saved_run(overrides)
    if saved is not None:
        return compose_on(saved, overrides, files)
    every = [*choices_of(overrides, files), *overrides]
    try:
        found = composed(every, asked.folders, [one.options for one in files])
    except REFUSALS as error:
        raise ConfigError(explain(error, every, groups(asked.folders))) from error
    typed = [key_of(override) for override in overrides]
    options = rename_values(found.options, "a config file", typed)
    import_plugins(options.get("plugins", []))
    config = to_config(options)
    _check_agents(config, typed, files)
    return apply_pins(config)


def _check_agents(config: Config, typed: Iterable[str], files: Iterable[Given]) -> None:
    """An agent that was given, and that no topology uses, is a misspelt one."""
    named = [(key, key.split(".")[1]) for key in typed if key.startswith("agents.")]
    for one in files:
        named += [(f"{one.where}: agents.{n}", n) for n in one.options.get("agents", {})]
    for key, name in named:
        if name not in config.topology.order:
            raise ConfigError(
                f"{key}: topology '{config.topology.name}' has no agent '{name}'. "
                f"{did_you_mean(name, config.topology.order)}"
            )
