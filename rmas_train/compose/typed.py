"""What was typed: refused where it cannot be an option, and brought into Hydra's form."""

from __future__ import annotations

from unicodedata import category

from rmas_train.compose.folders import groups
from rmas_train.compose.renamed import rename_typed
from rmas_train.errors import ConfigError

MOST_DIGITS = 100


def normalise(overrides: list[str]) -> list[str]:
    """Overrides as Hydra wants them: an option that no YAML file mentions may be set all the same.

    Whether it exists is checked later, against the dataclasses.
    """
    normal = []
    for override in overrides:
        if any(category(c) in ("Cc", "Cs") and c not in "\n\t" for c in override):
            raise ConfigError(
                f"{override}: control characters, or bytes that are not UTF-8; remove them."
            )
        if override.startswith("-"):
            raise ConfigError(f"Unknown flag {override}; options are key=value. See --help.")
        if "=" not in override:
            raise ConfigError(f"'{override}' is not key=value; write {override}=<value>.")
        key, value = override.split("=", 1)
        if value.strip("+- ").isdigit() and len(value) > MOST_DIGITS:
            raise ConfigError(f"{key}: a number of {len(value)} digits; give a smaller one.")
        if "_target_" in override:
            raise ConfigError(f"'{override}': configs here are data; `_target_` is not allowed.")
        if is_hydra(override):
            raise ConfigError(f"{override}: launchers run sweeps; add -m, or leave it out.")
        override = override.lstrip("+")
        is_group = override.split("=", 1)[0] in groups() or "/" in override.split("=", 1)[0]
        normal.append(override if is_group else f"++{override}")
    return rename_typed(normal)


def is_hydra(override: str) -> bool:
    """Whether it speaks of Hydra itself (its launcher), not of a run."""
    return override.lstrip("+~").startswith(("hydra.", "hydra/"))
