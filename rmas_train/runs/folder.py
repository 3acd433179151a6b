"""The run folder: what a run was asked, with which versions, where its stages write."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from rmas_train.compose import to_yaml
from rmas_train.config import Config
from rmas_train.support.files import check_writable, write_json, write_text
from rmas_train.support.redact import redacted

PACKAGES = (
    "rmas_train",
    "torch",
    "transformers",
    "accelerate",
    "datasets",
    "safetensors",
    "hydra-core",
)


def stage_folder(
    config: Config, stage: str, agents: Mapping[str, Mapping[str, Any]] | None = None
) -> Path:
    """``run_dir/<stage>``, writable, with the resolved config and the environment's versions.

    Args:
        config, stage: whose folder.
        agents: name -> model, revision (the hub's commit), fingerprint; as loaded.

    Raises:
        ConfigError: it cannot be written.
    """
    folder = Path(config.run_dir) / stage
    check_writable(folder, "run_dir")
    write_text(folder / "config.yaml", to_yaml(config))
    write_json(folder / "environment.json", environment() | {"agents": dict(agents or {})})
    return folder


def environment() -> dict[str, Any]:
    """Versions, hardware and the command, for every file with numbers."""
    program = Path(sys.argv[0])
    name = "-m rmas_train" if program.name == "__main__.py" else os.path.relpath(program)
    return {
        "command": redacted(" ".join(["python", name, *sys.argv[1:]])),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
