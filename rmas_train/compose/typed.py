"""What was typed: flags read, options refused where they cannot be one, or brought to one form."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unicodedata import category

from rmas_train.compose.folders import check_folder, groups
from rmas_train.compose.renamed import key_of, rename_typed
from rmas_train.errors import ConfigError, did_you_mean
from rmas_train.support.arguments import Parser

MOST_DIGITS = 100
FLAGS = ("--config", "--config-dir", "--show", "--multirun", "--version", "--help")
# The groups that conf/config.yaml names; a group of one's own is added to them.
ROOT_GROUPS = ("agents", "topology", "links", "data", "runtime", "experiment")


@dataclass(frozen=True)
class Typed:
    """A command line in its parts.

    Attributes:
        overrides: ``key=value`` and ``group=choice``, as typed, under their present names.
        files: of ``--config``, in their order.
        folders: of ``--config-dir``.
        is_sweep, is_shown: ``-m`` and ``--show``.
    """

    overrides: list[str]
    files: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    is_sweep: bool = False
    is_shown: bool = False

    @property
    def flags(self) -> list[str]:
        """The flags that decide the config, to be put before other overrides."""
        files = [f"--config={path}" for path in self.files]
        return [*files, *(f"--config-dir={path}" for path in self.folders)]


def read_typed(argv: Sequence[str]) -> Typed:
    """Flags may stand anywhere; everything else is ``key=value``.

    Raises:
        ConfigError: an unknown flag, a flag without its value, a folder that is none.
    """
    parser = Parser(prog="python -m rmas_train", add_help=False)
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--config", action="append", default=[], metavar="FILE", type=Path)
    parser.add_argument("--config-dir", action="append", default=[], metavar="DIR", type=Path)
    flags, rest = parser.parse_known_args(list(argv))
    folders = [check_folder(folder) for folder in flags.config_dir]
    return Typed(rename_typed(rest), flags.config, folders, flags.multirun, flags.show)


def normalise(overrides: Sequence[str], folders: Sequence[Path] = ()) -> list[str]:
    """Overrides as Hydra wants them: an option that no YAML file mentions may be set all the same.

    Whether it exists is checked later, against the dataclasses.
    """
    known = groups(folders)
    for override in overrides:
        _check(override)
    return [_normal(override.lstrip("+"), known) for override in overrides]


def as_choice(group: str, choice: str) -> str:
    """A group's choice as Hydra wants it: one that the root does not name is added."""
    return f"{group}={choice}" if group in ROOT_GROUPS else f"+{group}={choice}"


def is_hydra(override: str) -> bool:
    """Whether it speaks of Hydra itself (its launcher), not of a run."""
    return override.lstrip("+~").startswith(("hydra.", "hydra/"))


def _normal(override: str, known: Container[str]) -> str:
    key = key_of(override)
    if key in known:
        return as_choice(*override.split("=", 1))
    return override if "/" in key else f"++{override}"


def _check(override: str) -> None:
    """It may be an option: ``key=value`` in characters that can be written down."""
    if any(category(c) in ("Cc", "Cs") and c not in "\n\t" for c in override):
        raise ConfigError(
            f"{override}: control characters, or bytes that are not UTF-8; remove them."
        )
    if override.startswith("-"):
        near = did_you_mean(override.split("=", 1)[0], FLAGS)
        raise ConfigError(f"Unknown flag {override}; options are key=value. {near}")
    if "=" not in override:
        raise ConfigError(f"'{override}' is not key=value; write {override}=<value>.")
    key, value = override.split("=", 1)
    if value.strip("+- ").isdigit() and len(value) > MOST_DIGITS:
        raise ConfigError(f"{key}: a number of {len(value)} digits; give a smaller one.")
    if "_target_" in override:
        raise ConfigError(f"'{override}': configs here are data; `_target_` is not allowed.")
    if is_hydra(override):
        raise ConfigError(f"{override}: launchers run sweeps; add -m, or leave it out.")
