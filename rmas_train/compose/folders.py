"""Where the config groups are, and which choices they have."""

from __future__ import annotations

from pathlib import Path

from rmas_train.support.resources import resource_root


def config_dir() -> Path:
    return resource_root() / "conf"


def groups() -> dict[str, list[str]]:
    """Config groups and their choices."""
    folders = sorted(p for p in config_dir().iterdir() if p.is_dir())
    return {p.name: sorted(f.stem for f in p.glob("*.yaml")) for p in folders}
