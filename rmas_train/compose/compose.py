"""From the command line to one ``Config``.

YAML is data: there is no ``_target_``, nothing in a config is ever called.
"""

from __future__ import annotations

from typing import Any, cast

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from rmas_train.compose.explain import explain
from rmas_train.compose.folders import config_dir
from rmas_train.compose.nodes import REFUSALS, to_config
from rmas_train.compose.pins import apply_pins
from rmas_train.compose.renamed import key_of, rename_values
from rmas_train.compose.saved import compose_on, saved_run
from rmas_train.compose.typed import normalise
from rmas_train.config import Config
from rmas_train.errors import ConfigError, did_you_mean


def compose(overrides: list[str]) -> Config:
    """The config of one run.

    Args:
        overrides: ``key=value`` and ``group=choice`` as typed.

    Raises:
        ConfigError: unknown key or group, or a value that cannot work; one line.
    """
    overrides = normalise(overrides)
    saved = saved_run(overrides)
    if saved is not None:
        return compose_on(saved, overrides)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(config_dir())):
            composed = hydra_compose("config", overrides=overrides)
        plain = cast(dict[str, Any], OmegaConf.to_container(composed))
        plain = rename_values(plain, "a config file", [key_of(o) for o in overrides])
        config = to_config(OmegaConf.create(plain))
    except REFUSALS as error:
        raise ConfigError(explain(error, overrides)) from error
    _check_agents(config, overrides)
    return apply_pins(config)


def _check_agents(config: Config, overrides: list[str]) -> None:
    """A typed agent that no topology uses is a misspelt one."""
    for override in overrides:
        key = override.lstrip("+").split("=", 1)[0]
        name = key.split(".")[1] if key.startswith("agents.") else None
        if name is not None and name not in config.topology.order:
            raise ConfigError(
                f"{key}: topology '{config.topology.name}' has no agent '{name}'. "
                f"{did_you_mean(name, config.topology.order)}"
            )
