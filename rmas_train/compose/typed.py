"""What was typed: flags, ``key=value``, group choices, and options under former names."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unicodedata import category

from rmas_train.errors import ConfigError, DeprecatedOptionWarning, did_you_mean
from rmas_train.support.files import resource_root
from rmas_train.support.reading import Parser

ROOT_FILE = "config.yaml"


def config_dir() -> Path:
    """The shipped groups: beside the package in a clone, in it once installed."""
    return resource_root() / "conf"


def groups(own: Iterable[Path] = ()) -> dict[str, list[str]]:
    """Config groups and their choices; one in a sub-folder is ``eval/math500``.

    Args:
        own: folders of ``--config-dir``, which may add groups and choices.
    """
    found: dict[str, set[str]] = {}
    for root in (config_dir(), *own):
        for folder in (p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")):
            files = (f.relative_to(folder).with_suffix("") for f in folder.rglob("*.yaml"))
            found.setdefault(folder.name, set()).update(f.as_posix() for f in files)
    return {name: sorted(found[name]) for name in sorted(found)}


def folded(choices: Iterable[str]) -> list[str]:
    """The same for people to read: those in a folder of a folder as one, ``eval/released/...``."""
    parts = (choice.split("/") for choice in choices)
    return list(dict.fromkeys("/".join(p if len(p) < 3 else [*p[:2], "..."]) for p in parts))


def check_folder(folder: Path) -> Path:
    """A folder of groups of one's own.

    Raises:
        ConfigError: there is none, or it would replace the root of every config.
    """
    if not folder.is_dir():
        raise ConfigError(
            f"--config-dir {folder}: no such folder; give one with sub-folders topology, agents, "
            "data, experiment, ..."
        )
    if (folder / ROOT_FILE).exists():
        raise ConfigError(
            f"--config-dir {folder}: {ROOT_FILE} there would replace the shipped root; move it to "
            f"experiment/<name>.yaml, or give it with --config {folder / ROOT_FILE}."
        )
    return folder.resolve()


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
        is_sweep: ``-m``, or ``sweep=<file>``.
        is_shown: ``--show``.
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
    is_sweep = flags.multirun or any(key_of(override) == "sweep" for override in rest)
    return Typed(rename_typed(rest), flags.config, folders, is_sweep, flags.show)


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


def _normal(override: str, known: Mapping[str, list[str]]) -> str:
    key = key_of(override)
    if key in known:
        group, choice = override.split("=", 1)
        if choice.lstrip("'\"").startswith("["):  # Hydra would take it for several defaults
            raise ConfigError(f"{override}: no such choice. {did_you_mean(choice, known[key])}")
        return as_choice(group, choice)
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
    if override.startswith(("~", "=")):
        raise ConfigError(f"{override}: options are key=value; nothing is removed with ~.")
    key, value = override.split("=", 1)
    if value.strip("+- ").isdigit() and len(value) > MOST_DIGITS:
        raise ConfigError(f"{key}: a number of {len(value)} digits; give a smaller one.")
    if "_target_" in override:
        raise ConfigError(f"'{override}': configs here are data; `_target_` is not allowed.")
    if is_hydra(override):
        raise ConfigError(f"{override}: launchers run sweeps; add -m, or leave it out.")


def saved_run(overrides: list[str]) -> Path | None:
    """With ``stage=eval run=<folder>``: the config that this run was trained with, if any.

    The same with ``stage=analyse``.
    """
    typed = dict(o.lstrip("+").split("=", 1) for o in overrides)
    if typed.get("stage") not in ("eval", "analyse") or not typed.get("run"):
        return None
    folder = Path(typed["run"])
    if not folder.is_dir():
        raise ConfigError(f"run={folder}: no such folder; give a run folder, outputs/<name>.")
    found = [p for p in (folder / "outer" / "config.yaml", folder / "config.yaml") if p.is_file()]
    return found[0] if found else None
