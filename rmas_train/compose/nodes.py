"""Between plain data and a checked ``Config``, and what went wrong in one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import yaml
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rmas_train.compose.typed import groups
from rmas_train.config import Config, describe
from rmas_train.errors import ConfigError, UserError, did_you_mean
from rmas_train.support.output import check_values
from rmas_train.support.reading import check_type


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
    found = _unknown(lines, typed, choices or groups()) or _several(lines, typed)
    if found:
        return found
    if isinstance(error, RecursionError):
        return "an option is nested too deeply. See --help."
    told = " ".join(lines[:2]) if lines and lines[0].endswith(":") else (lines or [""])[0]
    what, full = told.rstrip(".") or type(error).__name__, _full_key(lines)
    return f"{full}: {what}. See --help." if full else f"{what}. See --help."


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


def _several(lines: list[str], typed: list[str]) -> str | None:
    """Several values outside a sweep."""
    if not any("Ambiguous value" in line for line in lines):
        return None
    value = next((o for o in typed if "," in o and o in lines[0]), lines[0])
    return (
        f"{value}: several values are a sweep; add -m. (In a list write [a,b]; stage=eval "
        "run=<folder> takes rounds=1,2,3.)"
    )


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


def typed_keys(typed: Sequence[str]) -> set[str]:
    """Full keys of all options that ``key=value`` sets, also inside a value in braces."""
    plain = OmegaConf.to_container(OmegaConf.from_dotlist(list(typed)))
    return {key for key, _ in leaves(cast(dict[str, Any], plain))}


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
