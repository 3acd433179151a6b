"""Options whose name has changed: the old name works for one release, with a warning."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Collection, Mapping
from typing import Any

from rmas_train.errors import ConfigError, DeprecatedOptionWarning

# Old key -> new key.
RENAMED = {
    "evaluation.controls": "evaluation.systems",
    "training.outer.checkpoint": "training.outer.recompute",
}


def rename_typed(overrides: list[str]) -> list[str]:
    """``key=value`` under the new names.

    Raises:
        ConfigError: an option is given under both of its names.
    """
    keys = {key_of(override) for override in overrides}
    renamed = []
    for override in overrides:
        old = key_of(override)
        if old in RENAMED:
            _warn(old, RENAMED[old] in keys, "typed")
            begin, end = override.split(old, 1)
            override = f"{begin}{RENAMED[old]}{end}"
        renamed.append(override)
    return renamed


def rename_values(
    values: Mapping[str, Any], where: str, winners: Collection[str] = ()
) -> dict[str, Any]:
    """Nested options under the new names.

    Args:
        values: the options; left as they are.
        where: the file, for messages.
        winners: new names whose value stands, whatever the old name says.

    Raises:
        ConfigError: an option is given under both of its names, and neither wins.
    """
    found = copy.deepcopy(dict(values))
    for old, new in RENAMED.items():
        *path, last = old.split(".")
        inside = _inside(found, path)
        if inside is None or last not in inside:
            continue
        value = inside.pop(last)
        *path, last = new.split(".")
        place = found
        for name in path:
            place = place.setdefault(name, {})
        _warn(old, last in place and new not in winners, where)
        if new not in winners:
            place[last] = value
    return found


def key_of(override: str) -> str:
    return override.lstrip("+~").split("=", 1)[0]


def _inside(values: Any, path: list[str]) -> dict[str, Any] | None:
    for name in path:
        values = values.get(name) if isinstance(values, dict) else None
    return values if isinstance(values, dict) else None


def _warn(old: str, is_twice: bool, where: str) -> None:
    new = RENAMED[old]
    if is_twice:
        raise ConfigError(
            f"{old} is the former name of {new}, and both are given ({where}); keep {new} alone."
        )
    warnings.warn(
        f"{old} is now called {new} ({where}); the old name works for one more release.",
        DeprecatedOptionWarning,
        stacklevel=1,
    )
