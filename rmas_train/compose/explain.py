"""One line out of the several that Hydra and OmegaConf write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import yaml

from rmas_train.compose.folders import groups
from rmas_train.config import Config, describe
from rmas_train.errors import UserError, did_you_mean


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
    what, full = (lines or [type(error).__name__])[0].rstrip("."), _full_key(lines)
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
