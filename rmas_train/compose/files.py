"""Files beside the command line: YAML options, plugins that they name, pinned commits."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any, TypedDict, cast

from rmas_train.compose.nodes import check_options
from rmas_train.compose.typed import as_choice, groups, key_of, rename_values
from rmas_train.config import Config
from rmas_train.errors import ConfigError
from rmas_train.support.reading import check_type, parse_yaml

MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def import_plugins(names: Any) -> None:
    """Import each module; the folder that the command was started in is searched as well.

    Raises:
        ConfigError: not names of modules, or one that cannot be imported, with its reason.
    """
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, Sequence):
        raise ConfigError(f"plugins={names}: give a list of modules, as in plugins=[my_module].")
    for name in names:
        if not isinstance(name, str) or not MODULE.fullmatch(name):
            raise ConfigError(
                f"plugins: '{name}' is no module's name; write my_module for my_module.py, with "
                "dots for folders."
            )
        _import(name)


def _import(name: str) -> None:
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)  # behind the installed libraries, so that it can hide none of them
    importlib.invalidate_caches()  # the file may have been written a moment ago
    try:
        importlib.import_module(name)
    except (Exception, SystemExit) as error:  # it is the user's code and may raise anything
        reason = f"{type(error).__name__}: {error}".rstrip(". ")
        raise ConfigError(
            f"plugins: {name} cannot be imported ({reason}); mend it, or start the command in its "
            "folder, or install it."
        ) from error


COMMIT = re.compile(r"[0-9a-f]{40}")


class Pin(TypedDict):
    """What was seen of a hub repository: its commit and its card's licence, on which day."""

    revision: str
    licence: str | None
    seen: str


class Pins(TypedDict, total=False):
    models: dict[str, Pin]
    datasets: dict[str, Pin]


def read_pins(path: Path) -> Pins:
    """What a pins file says; nothing if there is none.

    Raises:
        ConfigError: the file is malformed.
    """
    if not path.is_file():
        return {}
    try:
        pins = parse_yaml(path.read_text(encoding="utf-8")) or {}
        check_type(pins, Pins, "")
        for repository, pin in [*pins.get("models", {}).items(), *pins.get("datasets", {}).items()]:
            if not COMMIT.fullmatch(pin["revision"]):
                raise ValueError(f"{repository}: revision {pin['revision']!r} is no commit")
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{path}: {error}; mend it, or make it again with stage=pin.") from error
    return cast(Pins, pins)


def apply_pins(config: Config) -> Config:
    """Commits for the hub ids of ``config`` that have no revision; in place."""
    pins = read_pins(Path(config.pins))
    for agent in config.agents.values():
        if agent.revision is None and agent.model in pins.get("models", {}):
            agent.revision = pins["models"][agent.model]["revision"]
        if agent.adapter_revision is None and agent.adapter in pins.get("models", {}):
            agent.adapter_revision = pins["models"][agent.adapter]["revision"]
    for repository, revision in config.data.hub.items():
        if revision is None and repository in pins.get("datasets", {}):
            config.data.hub[repository] = pins["datasets"][repository]["revision"]
    return config


# On experiment=none, where users bring a system of their own, nothing shipped stays below these.
OWN = ("agents", "topology", "data")


@dataclass(frozen=True)
class Given:
    """Options that were given together.

    Attributes:
        where: the file, for messages.
        choices: group -> its choice, where a group's name has a text: ``experiment: mixture``.
        options: everything else, nested.
    """

    where: str
    choices: dict[str, str]
    options: dict[str, Any]


def read_file(path: Path, folders: Sequence[Path] = ()) -> Given:
    """Options of ``--config``.

    Raises:
        ConfigError: no such file, not YAML, or an option that does not exist; names the file.
    """
    if not path.is_file():
        raise ConfigError(f"--config {path}: no such file; give a YAML file of options.")
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path}: {error}; mend the file.") from error
    return given({} if values is None else values, str(path), folders)


def given(values: Any, where: str, folders: Sequence[Path] = ()) -> Given:
    """Options as plain data, checked against the dataclasses' names and types.

    Raises:
        ConfigError: names ``where`` and the option.
    """
    try:
        plain = _plain(values)
        check_type(plain, dict[str, Any], "")
    except (ValueError, RecursionError) as error:
        reason = error if isinstance(error, ValueError) else "nested too deeply"
        raise ConfigError(f"{where}: {reason}; give options as `key: value`.") from error
    if "defaults" in plain:
        raise ConfigError(
            f"{where}: holds `defaults`, but is plain options; leave it out, or put the file into "
            "the experiment/ of a --config-dir."
        )
    dotted = next((k for k in plain if "." in str(k)), None)
    if dotted is not None:
        first, rest = str(dotted).split(".", 1)
        raise ConfigError(f"{where}: '{dotted}' has dots; nest it, as in {first}: {{{rest}: ...}}.")
    known = groups(folders)
    choices = {k: v for k, v in plain.items() if k in known and isinstance(v, str)}
    options = {k: v for k, v in plain.items() if k not in choices}
    options = rename_values(options, where)
    return Given(where, choices, check_options(options, where))


def choices_of(overrides: Sequence[str], files: Sequence[Given]) -> list[str]:
    """Group choices that the files make, where none is typed.

    Files that name no experiment stand on ``none``: the settings of a shipped experiment belong to
    its own agents and data.
    """
    typed = {key_of(o): o.split("=", 1)[1] for o in overrides}
    chosen = {group: choice for one in files for group, choice in one.choices.items()}
    if files:
        chosen.setdefault("experiment", "none")
    found = [as_choice(*pair) for pair in chosen.items() if pair[0] not in typed]
    if (typed | chosen if "experiment" not in typed else typed).get("experiment") == "none":
        brought = {key for one in files for key in one.options} & set(OWN)
        found += [f"~{group}" for group in sorted(brought - typed.keys() - chosen.keys())]
    return found


def _plain(value: Any) -> Any:
    """Dataclasses, paths and tuples as what YAML has for them."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return fspath(value) if isinstance(value, PathLike) else value
