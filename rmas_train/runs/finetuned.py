"""What stages lora and sft leave in a run folder, and what it depends on."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rmas_train.config import Config
from rmas_train.runs.identity import Identity, as_read, common
from rmas_train.runs.load import Loaded
from rmas_train.support.reading import parse_json

IDENTITY, MODEL = "identity.json", "model"


def agent_of(config: Config) -> str:
    """The agent that is trained."""
    return config.finetune.agent or config.topology.decoder or config.topology.order[-1]


def folder_of(config: Config, method: str) -> Path:
    """Where an evaluation finds the trained agent: in the run folder whose links it evaluates."""
    return Path(config.run or config.run_dir) / method


def finetuned_identity(loaded: Loaded, method: str) -> Identity:
    """What the weights depend on."""
    config = loaded.config
    outer = config.training.outer
    options = {k: v for k, v in asdict(config.finetune).items() if k != "save_every"}
    options["agent"] = agent_of(config)
    options["steps"] = options["steps"] or outer.steps
    options["batch_size"] = options["batch_size"] or outer.batch_size
    rows = {"steps": outer.steps, "batch_size": outer.batch_size, "depth": outer.depth}
    own = {
        "stage": method,
        "finetune": options,
        "rows": rows | {"rounds": config.rounds, "data": loaded.train.fingerprint},
        "prompt": loaded.baseline_prompts,
    }
    return as_read(common(loaded) | own)


def is_finished(folder: Path, identity: Identity) -> bool:
    """Whether a model of this identity is there."""
    try:
        found: Any = parse_json((folder / IDENTITY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return found == identity and is_there(folder)


def is_there(folder: Path) -> bool:
    """Whether a trained model is in a stage's folder, of whatever identity."""
    return weights_hash(folder) is not None


def weights_hash(folder: Path) -> str | None:
    """Of the trained weights; None: there are none."""
    found = sorted((folder / MODEL).glob("*.safetensors"))
    if not found:
        return None
    digest = hashlib.sha256()
    for path in found:
        digest.update(path.read_bytes())
    return digest.hexdigest()
