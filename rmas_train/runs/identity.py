"""What a result depends on: one identity for links, checkpoints, evaluations and "finished".

An identity is plain data. Two results may stand for each other, or one may go on from the other,
only if their identities are equal; if not, ``why_other`` says what differs. What changes speed,
memory or files alone is left out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rmas_train.config import Config, LinksConfig, TrainingConfig
from rmas_train.errors import LinksError
from rmas_train.links.card import CARD, TENSORS, LinksCard, read_card
from rmas_train.links.folder import check_agents, find_links
from rmas_train.links.link_set import LinkSet
from rmas_train.runs.load import Loaded, hash_of, prompt_texts
from rmas_train.support.compare import why_other
from rmas_train.support.version import VERSION

Identity = dict[str, Any]
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
    "profile_every",
)
# Options that came after the format: left out at their default, so that older files still match.
LATER = {
    "objective": ("cosine", "answer"),
    "validate_every": (0,),
    "validate_rows": (100,),
    "select": ("last",),
    "end_token": (True,),
    "messages": ("own",),
    "earlier_rounds": (0.0,),
    "self_distill": (0.0,),
    "text_messages": (0.0,),
    "message_noise": (0.0,),
    "answers_of": (None,),
    "from_links": (None,),
    "loss_mean": ("token",),
    "message_update": ("replace",),
    "shared": (False,),
}
# What inner links depend on.
INNER_LINKS = ("variant", "norm", "init", "readout", "temperature", "top_k")
AGENT = ("fingerprint", "dtype", "attention", "tokenizer")


def inner_identity(loaded: Loaded, objective: str | None = None) -> Identity:
    """What inner links depend on; runs with the same one may share them.

    Args:
        loaded: of the run.
        objective: the class of an objective that is not built in.
    """
    config = loaded.config
    topology, links = asdict(config.topology), asdict(config.links)
    own = {
        "stage": "inner",
        "latent_length": _inner_length(config),
        "topology": {k: topology[k] for k in ("order", "edges")},
        "links": {k: links[k] for k in INNER_LINKS},
        "training": _deciding(config.training.inner),
        "data": _columns(config) | {"inner": _inner_data(loaded)},
    }
    return as_read(common(loaded) | own | _named(objective))


def outer_identity(loaded: Loaded, inner: str, objective: str | None = None) -> Identity:
    """What outer links and their start depend on.

    Args:
        loaded: of the run.
        inner: hash of the inner links (``tensors_hash``).
        objective: the class of an objective that is not built in.
    """
    config = loaded.config
    data = {"fingerprint": loaded.train.fingerprint, "inner": _inner_data(loaded)}
    own = {
        "stage": "outer",
        "rounds": config.rounds,
        "latent_length": config.latent_length,
        "topology": asdict(config.topology),
        "links": _deciding(config.links),
        "training": _deciding(config.training.outer),
        "data": _columns(config) | data,
        "inner_links": inner,
    }
    if config.training.outer.from_links is not None:  # what is in the folder, beside its name
        own["from_links"] = tensors_hash(find_links(Path(config.training.outer.from_links)))
    return as_read(common(loaded) | own | _named(objective))


def common(loaded: Loaded) -> Identity:
    """What every stage depends on: seed, code, agents, prompts."""
    return {
        "version": VERSION,
        "seed": loaded.config.seed,
        "agents": {n: {k: a.get(k) for k in AGENT} for n, a in loaded.agents.items()},
        "prompts": hash_of(prompt_texts(loaded.config, loaded.agents)),
        "rendered_prompts": {n: one["sha256"] for n, one in loaded.rendered.items()},
    }


def _columns(config: Config) -> dict[str, Any]:
    return {k: asdict(config.data)[k] for k in ("role_texts", "feedback_texts")}


def _inner_data(loaded: Loaded) -> dict[str, str]:
    return {name: table.fingerprint for name, table in loaded.tables.inner.items()}


def _named(objective: str | None) -> Identity:
    return {"objective": objective} if objective else {}


def _deciding(options: TrainingConfig | LinksConfig) -> dict[str, Any]:
    kept = asdict(options).items()
    return {k: v for k, v in kept if k not in FREE and v not in LATER.get(k, ())}


def _inner_length(config: Config) -> int | None:
    """Latent length where the inner stage rolls out."""
    return config.latent_length if config.training.inner.inner_states == "rollout" else None


def as_read(identity: Identity) -> Identity:
    """As it would be read from a file."""
    plain: Identity = json.loads(json.dumps(identity))
    return plain


def make_card(
    loaded: Loaded,
    stage: str,
    alignment: Mapping[str, dict[str, float]],
    identity: Identity,
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
        package_version=VERSION,
        prompts_hash=hash_of(prompts),
        options_hash=hash_of(identity),
        alignment=dict(alignment),
        identity=identity,
        rendered_prompts=dict(loaded.rendered),
    )


def tensors_hash(folder: Path) -> str:
    """Of the links in a folder, without their card."""
    return hashlib.sha256((folder / TENSORS).read_bytes()).hexdigest()


def find_inner(config: Config, loaded: Loaded) -> Path:
    """Inner links for the outer stage: as given, or this run's own, or equal ones beside it.

    Raises:
        LinksError: none, with the command that makes them; or those in the run folder are of
            another run.
    """
    if config.inner:
        folder = find_given(Path(config.inner))
        check_agents(folder, read_card(folder), loaded.agents)
        return folder
    own = Path(config.run_dir) / "inner" / "links"
    if (own / CARD).exists():
        check_own(own, loaded)
        return own
    twin = equal_inner(config, loaded)
    if twin is None:
        raise LinksError(
            f"no inner links in {own}; make them with: python -m rmas_train stage=inner "
            f"run_dir={config.run_dir}, or give inner=<folder>."
        )
    return twin


def find_given(folder: Path) -> Path:
    """The inner links in a folder that was named: itself, a stage's folder, or a run folder."""
    for candidate in (folder, folder / "links", folder / "inner" / "links"):
        if (candidate / CARD).is_file():
            return candidate
    raise LinksError(
        f"inner={folder}: no {CARD} there; give a links folder or a run folder with inner links."
    )


def check_own(own: Path, loaded: Loaded) -> None:
    """The inner links in the run folder are what this run would make; imported ones always fit.

    Raises:
        LinksError: names what differs, and how to take them all the same.
    """
    card = read_card(own)
    check_agents(own, card, loaded.agents)
    wanted = inner_identity(loaded)
    if not card.released and card.identity != wanted:
        other = why_other(card.identity, wanted)
        raise LinksError(
            f"{own} is of another run ({other}); train inner links again with stage=inner, or take "
            f"these with inner={own}."
        )


def equal_inner(config: Config, loaded: Loaded) -> Path | None:
    """Finished inner links of the same identity, here or in a run folder beside this one.

    This run's own come first, then those that its outer stage began with, then the newest.
    """
    wanted = inner_identity(loaded)
    run_dir = Path(config.run_dir)
    beside = [f for f in run_dir.parent.glob("*/inner/links") if f.is_dir()]
    found = []
    for folder in [run_dir / "inner" / "links", *sorted(beside, key=lambda f: -f.stat().st_mtime)]:
        try:
            if read_card(folder).identity == wanted:
                found.append(folder)
        except LinksError:
            continue
    begun = _begun_with(run_dir)
    own = [f for f in found if f.parent.parent == run_dir]
    return next(iter([*own, *(f for f in found if tensors_hash(f) == begun), *found]), None)


def _begun_with(run_dir: Path) -> str | None:
    """Hash of the inner links that the outer stage in this folder began with."""
    try:
        begun = read_card(run_dir / "outer" / "start").identity.get("inner_links")
    except LinksError:
        return None
    return str(begun)


def inner_only(links: LinkSet) -> LinkSet:
    """The same inner links without the outer ones."""
    return LinkSet(dict(links.inner.items()), {})  # type: ignore[arg-type]
