"""Where a shipped group's models are: in a folder of the user's, or on the hub."""

from __future__ import annotations

from pathlib import Path

from omegaconf import OmegaConf

RESOLVER = "model_at"


def model_at(folder: str | None, name: str, hub: str) -> str:
    """``${model_at:${small},gemma3,google/gemma-3-270m}``: the folder's, or else the hub id."""
    return hub if folder is None else str(Path(folder) / name)


def register() -> None:
    """Make it known to OmegaConf; it joins names and reads nothing."""
    OmegaConf.register_new_resolver(RESOLVER, model_at, replace=True)
