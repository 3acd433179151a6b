"""Where ``conf/`` and ``data_recipes/`` are: beside the package in a clone, in it in a wheel."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def resource_root() -> Path:
    """The folder that holds ``conf`` and ``data_recipes``."""
    return PACKAGE if (PACKAGE / "conf").is_dir() else PACKAGE.parent


def find_path(name: str) -> Path | None:
    """A file or folder by its path, or by its path below the resource root; None if not found."""
    for candidate in (Path(name), resource_root() / name):
        if candidate.exists():
            return candidate
    return None
