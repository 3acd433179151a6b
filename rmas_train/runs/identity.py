"""What passes between stages: links folders, their cards, and which inner links belong to a run."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rmas_train.config import Config, TrainingConfig
from rmas_train.errors import LinksError
from rmas_train.links.folder import LinksCard, check_agents, load_tensors, read_card
from rmas_train.links.modules import LinkSet
from rmas_train.runs.load import Loaded, prompt_texts

# Options of a stage that change no number but by rounding.
FREE = (
    "micro_batch_size",
    "log_every",
    "save_every",
    "save_minutes",
    "keep",
    "recompute",
    "prefix_cache_gib",
    "callbacks",
)
# Options that came after the format: left out at their default, so that older files still match.
LATER = {"objective": ("cosine", "answer")}


def make_card(
    loaded: Loaded, stage: str, alignment: Mapping[str, dict[str, float]], options_hash: str = ""
) -> LinksCard:
    """The links card of this run."""
    config = loaded.config
    prompts = prompt_texts(config, loaded.agents)
    is_outer = stage != "inner"
    return LinksCard(
        stage=stage,
        agents=loaded.agents,
        topology=asdict(config.topology),
        links=asdict(config.links),
        prompts=prompts,
        rounds=config.rounds if is_outer else None,
        latent_length=config.latent_length if is_outer else None,
        max_new_tokens=config.evaluation.max_new_tokens,
        data_fingerprint=loaded.train.fingerprint,
        package_version=version("rmas_train"),
        prompts_hash=_hash(prompts),
        options_hash=options_hash,
        alignment=dict(alignment),
    )


def inner_options_hash(loaded: Loaded) -> str:
    """Everything that decides the inner links: two runs with the same one may share them."""
    config = loaded.config
    links = {k: v for k, v in asdict(config.links).items() if k in ("variant", "norm", "init")}
    training = _deciding(config.training.inner)
    data = {k: asdict(config.data)[k] for k in ("role_texts", "feedback_texts")}
    agents = {n: d["fingerprint"] for n, d in loaded.agents.items()}
    rest = [_inner_length(config), agents, loaded.tables.inner_fingerprint, config.seed]
    texts = [prompt_texts(config, loaded.agents), asdict(config.topology)["edges"]]
    return _hash([links, training, data, *rest, *texts, config.data.inner_files])


def run_identity(loaded: Loaded, stage: str, objective: str | None = None) -> dict[str, Any]:
    """What decides a stage's numbers: a checkpoint goes on only in a run that shares all of it.

    What changes speed, memory or files alone is left out.

    Args:
        loaded: of the run.
        stage: ``inner`` or ``outer``.
        objective: the class of an objective that is not built in.
    """
    config = loaded.config
    is_outer = stage == "outer"
    tables = loaded.tables
    fingerprint = tables.train.fingerprint if is_outer else tables.inner_fingerprint
    data = {k: asdict(config.data)[k] for k in ("role_texts", "feedback_texts")}
    return {
        "stage": stage,
        "seed": config.seed,
        "rounds": config.rounds if is_outer else None,
        "latent_length": config.latent_length if is_outer else _inner_length(config),
        "topology": asdict(config.topology),
        "links": asdict(config.links),
        "training": _deciding(getattr(config.training, stage)),
        "data": data | {"fingerprint": fingerprint},
        "prompts": _hash(prompt_texts(config, loaded.agents)),
        "agents": {n: about["fingerprint"] for n, about in loaded.agents.items()},
    } | ({"objective": objective} if objective else {})


def _deciding(options: TrainingConfig) -> dict[str, Any]:
    return {k: v for k, v in asdict(options).items() if k not in FREE and v not in LATER.get(k, ())}


def _inner_length(config: Config) -> int | None:
    """Latent length where the inner stage rolls out."""
    return config.latent_length if config.training.inner.inner_states == "rollout" else None


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def find_inner(config: Config, loaded: Loaded) -> Path:
    """Inner links for the outer stage: as given, or the newest valid ones for the same agents.

    Raises:
        LinksError: none, with the command that makes them.
    """
    agents = loaded.agents
    if config.inner:
        folder = Path(config.inner)
        folder = folder if (folder / "links.json").is_file() else folder / "links"
        check_agents(folder, read_card(folder), agents)
        return folder
    own = Path(config.run_dir) / "inner" / "links"
    if own.is_dir():
        check_agents(own, read_card(own), agents)
        return own
    twin = equal_inner(config, loaded)
    if twin is None:
        raise LinksError(
            f"no inner links in {own}; make them with: python -m rmas_train stage=inner "
            f"run_dir={config.run_dir}, or give inner=<folder>."
        )
    return twin


def equal_inner(config: Config, loaded: Loaded) -> Path | None:
    """Finished inner links, here or in a run folder beside this one, from the same options."""
    wanted = inner_options_hash(loaded)
    run_dir = Path(config.run_dir)
    found = [run_dir / "inner" / "links", *run_dir.parent.glob("*/inner/links")]
    for folder in sorted((f for f in found if f.is_dir()), key=lambda f: -f.stat().st_mtime):
        try:
            if read_card(folder).options_hash == wanted:
                return folder
        except LinksError:
            continue
    return None


def read_links(loaded: Loaded, folder: Path, like: LinkSet) -> LinkSet:
    """Links from a folder, checked against this set-up's agents; ``like`` has their shapes."""
    card = read_card(folder)
    check_agents(folder, card, loaded.agents)
    links = copy.deepcopy(like)
    load_tensors(folder, links)
    return links


def inner_only(links: LinkSet) -> LinkSet:
    """The same inner links without the outer ones."""
    return LinkSet(dict(links.inner.items()), {})  # type: ignore[arg-type]
