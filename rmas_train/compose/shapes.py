"""The shape of options: one value where a list is meant is a list of one; other shapes are told."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any

from rmas_train.config import Config, shown
from rmas_train.errors import ConfigError


def shaped(values: Mapping[str, Any], hint: Any = Config, prefix: str = "") -> dict[str, Any]:
    """Nested options in which a single value of a list option is a list of one.

    What is unknown, and what is not resolved yet (``${...}``), stays as it is.

    Raises:
        ConfigError: one value where named values are needed, or the other way round; names the
            option and the right form.
    """
    hints = typing.get_type_hints(hint)
    return {k: _shaped(v, hints[k], f"{prefix}{k}") if k in hints else v for k, v in values.items()}


def _shaped(value: Any, hint: Any, key: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        return _shaped(value, next(a for a in args if a is not type(None)), key)
    if isinstance(value, str) and "${" in value:
        return value
    if origin is list:
        return _items(value, args[0], key)
    if origin is dict or is_dataclass(hint):
        return _named(value, hint, args, key)
    if isinstance(value, Mapping | list) and hint is not Any:
        raise ConfigError(f"{key}={shown(value)}: give one value, as in {key}=<value>.")
    return value


def _items(value: Any, hint: Any, key: str) -> Any:
    if isinstance(value, Mapping) or (is_dataclass(hint) and not isinstance(value, list)):
        raise ConfigError(f"{key}={shown(value)}: give a list, as in {key}=[...].")
    if not isinstance(value, list):
        takes_none = type(None) in typing.get_args(hint)
        return value if value is None and not takes_none else [value]
    if not is_dataclass(hint):
        return value
    return [_shaped(item, hint, f"{key}[{i}]") for i, item in enumerate(value)]


def _named(value: Any, hint: Any, args: tuple[Any, ...], key: str) -> Any:
    if not isinstance(value, Mapping):
        if value is None:  # the type check says what to do
            return value
        name = "<name>" if args else next(iter(typing.get_type_hints(hint)))
        raise ConfigError(
            f"{key}={shown(value)}: give named values, as in {key}.{name}=<value>, or in a file "
            f"{key.rsplit('.', 1)[-1]}: {{{name}: <value>}}."
        )
    if args:
        return {name: _shaped(item, args[1], f"{key}.{name}") for name, item in value.items()}
    return shaped(value, hint, f"{key}.")
