"""Between plain data and a checked ``Config``, and what went wrong in one line."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from functools import cache
from typing import Any, cast

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rmas_train.compose.models import register
from rmas_train.compose.quoting import how_to_type
from rmas_train.compose.typed import groups
from rmas_train.config import Config, describe, shown
from rmas_train.errors import ConfigError, UserError, did_you_mean
from rmas_train.support.output import check_values
from rmas_train.support.reading import check_type

register()


def explain(
    error: Exception, overrides: Sequence[str], choices: Mapping[str, list[str]] | None = None
) -> str:
    """What an error means for whoever typed ``overrides``, with the nearest name.

    Args:
        choices: group -> its choices; the shipped ones if not given.
    """
    causes = _causes(error)
    for cause in causes:
        if isinstance(cause, UserError):
            return str(cause)
        if isinstance(cause, yaml.MarkedYAMLError) and cause.problem_mark is not None:
            mark = cause.problem_mark
            return f"{mark.name}: {cause.problem}, line {mark.line + 1}; mend the file."
    lines = [line.strip() for e in causes for line in str(e).splitlines() if line.strip()]
    typed = [override.lstrip("+~") for override in overrides]
    known = choices or groups()
    found = (
        unreadable(overrides, known)
        or _unknown(lines, typed, known)
        or _several(lines, typed)
        or _interval(lines, typed)
    )
    if found:
        return found
    if isinstance(error, RecursionError):
        return "an option is nested too deeply. See --help."
    told = " ".join(lines[:2]) if lines and lines[0].endswith(":") else (lines or [""])[0]
    what, full = told.rstrip(".") or type(error).__name__, _full_key(lines)
    if "nterpolation" in what:
        return f"{full}: {what}; ${{...}} refers to an option, write \\${{...}} for the text."
    return f"{full}: {what}. See --help." if full else f"{what}. See --help."


def unreadable(overrides: Sequence[str], choices: Mapping[str, list[str]]) -> str | None:
    """What to say of the first override that Hydra's grammar does not take; None: it takes all."""
    parser = OverridesParser.create()
    for override in overrides:
        try:
            parser.parse_override(override)
        except HydraException as error:
            known = [*(key for key, _, _ in describe(Config)), *choices]
            return how_to_type(override.lstrip("+~"), _place(error, override), known, choices)
    return None


def _place(error: HydraException, override: str) -> str:
    """The rest of the override from where its parser stopped, in quotes; empty if unknown."""
    cause: Any = error.__cause__
    column = getattr(cause, "startIndex", None)
    if column is None or not override[column:]:
        column = getattr(getattr(cause, "offendingToken", None), "column", None)
    rest = override[column : column + 40] if isinstance(column, int) else ""
    return repr(rest) if rest else ""


def _causes(error: Exception) -> list[Exception]:
    found, cause = [error], error.__cause__
    while cause is not None:
        found.append(cast(Exception, cause))
        cause = cause.__cause__
    return found


def _full_key(lines: list[str]) -> str:
    return next((li.split(":", 1)[1].strip() for li in lines if li.startswith("full_key")), "")


def _unknown(lines: list[str], typed: list[str], choices: Mapping[str, list[str]]) -> str | None:
    """An option or a group's choice that does not exist."""
    known, full = [*(key for key, _, _ in describe(Config)), *choices], _full_key(lines)
    unknown = [
        key
        for key in (o.split("=", 1)[0] for o in typed)
        if any("Could not override" in li and key in li for li in lines)
    ]
    if not unknown and full and any("not in" in li for li in lines):
        unknown = [full]
    if unknown:
        return f"Unknown option '{unknown[0]}'. {did_you_mean(unknown[0], known)}"
    chosen = [o.split("=", 1) for o in typed if "=" in o and o.split("=", 1)[0] in choices]
    chosen.sort(key=lambda pair: pair[1] in choices[pair[0]])  # what is no choice stands first
    refusals = ("Could not find", "Config group override")
    if chosen and any(refusal in line for line in lines for refusal in refusals):
        group, value = chosen[0]
        return f"{group}={value}: no such choice. {did_you_mean(value, choices[group])}"
    return None


def _interval(lines: list[str], typed: list[str]) -> str | None:
    """A sweep over something that cannot be listed."""
    if not any("Can only enumerate" in line for line in lines):
        return None
    value = next((o for o in typed if "interval(" in o), lines[0])
    key = value.split("=", 1)[0]
    return f"{value}: a sweep needs values that can be listed; write {key}=a,b or {key}=range(0,3)."


def _several(lines: list[str], typed: list[str]) -> str | None:
    """Several values outside a sweep."""
    if not any("Ambiguous value" in li or "requires --multirun" in li for li in lines):
        return None
    value = next((o for o in typed if o in lines[0]), lines[0])
    return (
        f"{value}: several values are a sweep; add -m. (In a list write [a,b]; stage=eval "
        "run=<folder> takes rounds=1,2,3.)"
    )


# Hydra's, OmegaConf's, and what a hostile text makes their parsers stop with.
REFUSALS = (HydraException, OmegaConfBaseException, yaml.YAMLError, RecursionError, ValueError)


@cache
def _schema() -> DictConfig:
    """Every option with its type and default; a merge copies it."""
    return cast(DictConfig, OmegaConf.structured(Config))


def to_config(plain: Mapping[str, Any]) -> Config:
    """Composed options as checked dataclasses."""
    try:
        merged = OmegaConf.merge(_schema(), shaped(plain))
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
) -> dict[str, Any]:
    """Options with those of files and then of ``key=value`` on top, unchecked."""
    merged = OmegaConf.merge(_schema(), plain, *files)
    own = OmegaConf.to_container(OmegaConf.from_dotlist(typed))
    merged = cast(DictConfig, OmegaConf.merge(merged, shaped(cast(dict[str, Any], own))))
    empty(merged, typed)
    return cast(dict[str, Any], OmegaConf.to_container(merged))


def empty(node: DictConfig, typed: Sequence[str]) -> None:
    """``key={}`` empties a dict, in place; merging alone would leave in it what it had."""
    plain = [override.lstrip("+") for override in typed]
    for i, override in enumerate(plain):
        key, _, value = override.partition("=")
        if value.replace(" ", "") != "{}" or not isinstance(
            OmegaConf.select(node, key), DictConfig
        ):
            continue
        OmegaConf.update(node, key, {}, merge=False)
        later = [o for o in plain[i + 1 :] if o.startswith(f"{key}.")]
        own = OmegaConf.select(OmegaConf.from_dotlist(later), key)
        if own is not None:
            OmegaConf.update(node, key, own, merge=True, force_add=True)


def typed_keys(typed: Sequence[str]) -> set[str]:
    """Full keys of all options that ``key=value`` sets, also inside a value in braces."""
    plain = OmegaConf.to_container(OmegaConf.from_dotlist(list(typed)))
    return {key for key, _ in leaves(cast(dict[str, Any], plain))}


def check_options(plain: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Every option exists and has its type; values are not looked at any closer.

    Returns:
        the options, see ``shaped``.

    Raises:
        ConfigError: one does not; names ``where`` and the nearest option.
    """
    if "_target_" in str(plain):
        raise ConfigError(f"{where}: configs here are data; `_target_` is not allowed.")
    try:
        options = shaped(plain)
        OmegaConf.merge(_schema(), options)
    except (ConfigError, *REFUSALS) as error:
        raise ConfigError(f"{where}: {explain(error, [])}") from error
    return options


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


def with_defaults(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Options with every default, resolved where they can be, unchecked."""
    merged = OmegaConf.merge(_schema(), shaped(plain))
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
