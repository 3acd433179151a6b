"""Between OmegaConf's nodes and plain data or dataclasses."""

from __future__ import annotations

from typing import Any, cast

import yaml
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rmas_train.compose.explain import explain
from rmas_train.config import Config
from rmas_train.errors import ConfigError, UserError
from rmas_train.support.reading import check_type
from rmas_train.support.redact import check_values

# Hydra's, OmegaConf's, and what a hostile text makes their parsers stop with.
REFUSALS = (HydraException, OmegaConfBaseException, RecursionError, ValueError)


def to_config(node: Any) -> Config:
    """A composed node as checked dataclasses."""
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Config), node)
        plain = OmegaConf.to_container(merged, resolve=True)
        check_values(cast(dict[str, Any], plain))
        config = cast(Config, OmegaConf.to_object(merged))
        check_type(plain, Config, "")
    except REFUSALS as error:
        cause = error.__cause__ or error.__context__
        if isinstance(cause, UserError):
            raise cause from error
        raise ConfigError(explain(error, [])) from error
    return config


def to_dict(config: Config) -> dict[str, Any]:
    """Plain data, ready for YAML and JSON."""
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.structured(config)))


def to_yaml(config: Config) -> str:
    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)
