"""Options from a YAML file or a dict of the user's: plain data that stands on an experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from rmas_train.compose.folders import groups
from rmas_train.compose.nodes import check_options
from rmas_train.compose.renamed import key_of, rename_values
from rmas_train.compose.typed import as_choice
from rmas_train.errors import ConfigError
from rmas_train.support.reading import check_type, parse_yaml

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
    known = groups(folders)
    choices = {k: v for k, v in plain.items() if k in known and isinstance(v, str)}
    options = {k: v for k, v in plain.items() if k not in choices}
    options = rename_values(options, where)
    check_options(options, where)
    return Given(where, choices, options)


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
