"""What a data folder says about the recipe that made it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rmas_train.config import DataConfig
from rmas_train.support.reading import parse_json

STAMP = "recipe.json"


def wanted_stamp(data: DataConfig, seed: int) -> dict[str, Any]:
    """What the folder would say after this recipe with these options."""
    return {"recipe": data.recipe, "seed": seed, "options": recipe_options(data)}


def read_stamp(folder: Path) -> dict[str, Any] | None:
    """What it says; None if no recipe has made it."""
    try:
        found: dict[str, Any] | None = parse_json((folder / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found


def needs_recipe(data: DataConfig, seed: int) -> bool:
    """Whether a recipe has something to do."""
    if data.recipe is None:
        return False
    return read_stamp(Path(data.folder)) != wanted_stamp(data, seed)


def recipe_options(data: DataConfig) -> dict[str, Any]:
    """``data.recipe_options``, with the commits of ``data.hub`` if no revision is given there."""
    pinned = [f"{hub}@{commit}" for hub, commit in data.hub.items() if commit]
    return ({"revision": ",".join(pinned)} if pinned else {}) | data.recipe_options
