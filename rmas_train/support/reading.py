"""Parse text into plain data, and check plain data against types. Errors are one-line ValueErrors.

Parsers fail on more than bad syntax: nesting that overflows the stack, numbers of thousands of
digits, dates that do not exist, anchors that multiply. All of these become a ValueError here.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import types
import typing
from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import partial
from reprlib import repr as short
from typing import Any, NoReturn

import yaml

from rmas_train.errors import ConfigError

HALF = "half of a surrogate pair; write the character itself"
MOST_NODES = 1_000_000  # values in a YAML file, with its anchors expanded


def parse_json(text: str) -> Any:
    """Parse JSON in which no key occurs twice and every text can be written as UTF-8.

    Raises:
        ValueError: it is not such JSON; JSONDecodeError if the place is known.
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique)
        if "\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except UnicodeEncodeError as error:
        raise ValueError(HALF) from error
    except ValueError as error:
        _check_digits(error)
        raise
    return value


def parse_yaml(text: str) -> Any:
    """Parse YAML that holds plain data, and in which no key occurs twice.

    Raises:
        ValueError: not YAML, or a value or anchor that cannot be read.
    """
    try:
        value = UniqueKeys(text).get_single_data()
        if (nodes := _nodes(value, {})) > MOST_NODES:
            raise ValueError(f"anchors that multiply to {short(nodes)} values")
    except yaml.YAMLError as error:
        raise ValueError(_yaml_line(error)) from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except UnicodeEncodeError as error:
        raise ValueError(HALF) from error
    except ValueError as error:
        _check_digits(error)
        raise
    except (TypeError, KeyError, IndexError, AttributeError) as error:  # PyYAML's constructors
        raise ValueError("a tag whose value does not fit it") from error
    return value


class UniqueKeys(yaml.SafeLoader):
    """PyYAML's safe loader takes the last of two equal keys; this one refuses them."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else []:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            if (key.tag, key.value) in seen:
                problem = f"key {short(key.value)} stands twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"key {short(twice)} stands twice")
    return found


def _check_digits(error: ValueError) -> None:
    """Replace Python's text, which names a setting of the interpreter."""
    if "int_max_str_digits" in str(error):
        raise ValueError("a number with thousands of digits") from error


def _yaml_line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"{problem}, line {mark.line + 1}" if mark else str(problem)


def _nodes(value: Any, seen: dict[int, int]) -> int:
    """Number of values; a value behind an anchor counts each time, but is visited once."""
    if not isinstance(value, dict | list | tuple | set):
        if isinstance(value, str):
            value.encode()  # UnicodeEncodeError: half of a surrogate pair
        return 1
    if seen.get(id(value)) == 0:
        raise ValueError("an anchor within itself")
    if id(value) not in seen:
        seen[id(value)] = 0
        parts = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        seen[id(value)] = 1 + sum(_nodes(part, seen) for part in parts)
    return seen[id(value)]


def check_type(value: Any, hint: Any, key: str) -> None:
    """Check plain data against a type hint: scalars, None, list, dict, TypedDict, dataclass.

    Raises:
        ValueError: names the inner key and its value.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in args:
            return
        check_type(value, next(a for a in args if a is not type(None)), key)
    elif origin is list:
        _check_is(isinstance(value, list), value, "a list", key)
        for i, item in enumerate(value):
            check_type(item, args[0], f"{key}[{i}]")
    elif origin is dict:
        _check_is(isinstance(value, dict), value, "named values", key)
        for name, item in value.items():
            check_type(item, args[1], f"{key}.{name}")
    elif typing.is_typeddict(hint) or is_dataclass(hint):
        _check_fields(value, hint, key)
    else:
        _check_scalar(value, hint, key)


def _check_fields(value: Any, hint: Any, key: str) -> None:
    """Check that every field is present. A dataclass may have no other keys, a TypedDict may."""
    _check_is(isinstance(value, dict), value, "named values", key)
    hints = typing.get_type_hints(hint)
    for name in sorted(getattr(hint, "__required_keys__", hints)):
        if name not in value:
            raise ValueError(f"key {f'{key}.{name}'.lstrip('.')} is missing")
    for name, item in value.items():
        if name in hints:
            check_type(item, hints[name], f"{key}.{name}".lstrip("."))
        elif is_dataclass(hint):
            raise ValueError(f"key {f'{key}.{name}'.lstrip('.')} is unknown")


def _check_scalar(value: Any, hint: type, key: str) -> None:
    if hint is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        fits = fits and math.isfinite(value)
    elif hint is int:
        fits = isinstance(value, int) and not isinstance(value, bool)
    else:
        fits = isinstance(value, hint)
    names: Mapping[type, str] = {str: "a text", int: "a whole number", float: "a finite number"}
    _check_is(fits, value, names.get(hint, "true or false"), key)


def _check_is(fits: bool, value: Any, wanted: str, key: str) -> None:
    if not fits:
        raise ValueError(f"{f'key {key}' if key else 'it'} is {short(value)}, not {wanted}")


# Variable -> the smallest and the largest number that it may have. LOCAL_RANK=-1: not launched.
RANGES = {
    "RANK": (0, 10**6),
    "WORLD_SIZE": (1, 10**6),
    "LOCAL_RANK": (-1, 10**6),
    "LOCAL_WORLD_SIZE": (1, 10**6),
    "MASTER_PORT": (0, 65535),
}
REMEDY = (
    "start several processes with torchrun --nproc-per-node <processes> -m rmas_train ..., or "
    "unset {} to run one"
)


def check_launched(env: Mapping[str, str] = os.environ) -> None:
    """The variables of a launcher are numbers that fit each other.

    Raises:
        ConfigError: names the variable, its value, and what to do.
    """
    numbers = {name: _number(name, env[name]) for name in RANGES if name in env}
    world, local = numbers.get("WORLD_SIZE", 1), numbers.get("LOCAL_RANK", -1)
    seen = ", ".join(f"{name}={numbers[name]}" for name in numbers)
    if world > 1 or local >= 0:
        needed = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")
        if missing := [name for name in needed if not env.get(name)]:
            raise ConfigError(
                f"the environment has {seen}, but no {', no '.join(missing)}; "
                f"{REMEDY.format(' and '.join(numbers))}."
            )
    pairs = (("RANK", "WORLD_SIZE"), ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    for name, total in pairs:
        if numbers.get(name, 0) >= numbers.get(total, 1 if name == "RANK" else 10**6):
            raise ConfigError(
                f"the environment has {name}={numbers[name]}, but {total}="
                f"{numbers.get(total, 'nothing')}; {REMEDY.format(' and '.join(numbers))}."
            )


def _number(name: str, text: str) -> int:
    least, most = RANGES[name]
    try:
        value = int(text)
    except ValueError:
        value = None
    if value is None or not least <= value <= most:
        raise ConfigError(
            f"environment variable {name}={text!r}: not a whole number from {least} to {most}; "
            f"{REMEDY.format(name)}."
        )
    return value


WIDTH = 80  # columns of a help text, whatever the terminal


class Parser(argparse.ArgumentParser):
    """An argument parser that raises ``ConfigError``, and whose help fits 80 columns."""

    def __init__(self, **options: Any) -> None:
        narrow = partial(argparse.HelpFormatter, width=WIDTH)
        super().__init__(formatter_class=narrow, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        command = self.prog.removeprefix("python -m rmas_train").strip()
        raise ConfigError(f"{command}: {message}. See --help.".removeprefix(": "))
