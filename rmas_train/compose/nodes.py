"""Between OmegaConf's nodes and plain data or dataclasses: the only file that knows OmegaConf."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
REFUSALS = (HydraException, OmegaConfBaseException, yaml.YAMLError, RecursionError, ValueError)


def to_config(plain: Mapping[str, Any]) -> Config:
    """Composed options as checked dataclasses."""
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Config), plain)
        resolved = OmegaConf.to_container(merged, resolve=True)
        check_values(cast(dict[str, Any], resolved))
        config = cast(Config, OmegaConf.to_object(merged))
        check_type(resolved, Config, "")
    except REFUSALS as error:
        cause = error.__cause__ or error.__context__
        if isinstance(cause, UserError):
            raise cause from error
        raise ConfigError(explain(error, [])) from error
    return config


def merge_typed(
    plain: Mapping[str, Any], files: Sequence[Mapping[str, Any]], typed: list[str]
) -> Any:
    """Options with those of files and then of ``key=value`` on top, unchecked."""
    merged = OmegaConf.merge(OmegaConf.structured(Config), plain, *files)
    return OmegaConf.merge(merged, OmegaConf.from_dotlist(typed))


def check_options(plain: Mapping[str, Any], where: str) -> None:
    """Every option exists and has its type; values are not looked at any closer.

    Raises:
        ConfigError: one does not; names ``where`` and the nearest option.
    """
    if "_target_" in str(plain):
        raise ConfigError(f"{where}: configs here are data; `_target_` is not allowed.")
    try:
        OmegaConf.merge(OmegaConf.structured(Config), plain)
    except REFUSALS as error:
        raise ConfigError(f"{where}: {explain(error, [])}") from error


def with_defaults(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Options with every default, resolved where they can be, unchecked."""
    merged = OmegaConf.merge(OmegaConf.structured(Config), plain)
    return cast(dict[str, Any], OmegaConf.to_container(merged, resolve=True))


def to_dict(config: Config) -> dict[str, Any]:
    """Plain data, ready for YAML and JSON."""
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.structured(config)))


def to_yaml(config: Config) -> str:
    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Full key -> value of nested options."""
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + str(name), value
