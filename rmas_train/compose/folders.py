"""Where the config groups are, and which choices they have."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rmas_train.errors import ConfigError
from rmas_train.support.resources import resource_root

ROOT_FILE = "config.yaml"


def config_dir() -> Path:
    """The shipped groups: beside the package in a clone, in it once installed."""
    return resource_root() / "conf"


def groups(own: Iterable[Path] = ()) -> dict[str, list[str]]:
    """Config groups and their choices.

    Args:
        own: folders of ``--config-dir``, which may add groups and choices.
    """
    found: dict[str, set[str]] = {}
    for root in (config_dir(), *own):
        for folder in (p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")):
            found.setdefault(folder.name, set()).update(f.stem for f in folder.glob("*.yaml"))
    return {name: sorted(found[name]) for name in sorted(found)}


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
