"""What a result depends on: one identity for links, checkpoints, evaluations and "finished".

An identity is plain data. Two results may stand for each other, or one may go on from the other,
only if their identities are equal; if not, ``differences`` says what differs. What changes speed,
memory or files alone is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from rmas_train.config import Config, TrainingConfig
from rmas_train.links.folder import LinksCard
from rmas_train.runs.hashes import hash_of
from rmas_train.runs.load import Loaded, prompt_texts
from rmas_train.support.compare import differences, told

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
)
# Options that came after the format: left out at their default, so that older files still match.
LATER = {"objective": ("cosine", "answer")}
INNER_LINKS = ("variant", "norm", "init")  # what inner links depend on
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
    return _plain(_common(loaded) | own | _named(objective))


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
        "links": asdict(config.links),
        "training": _deciding(config.training.outer),
        "data": _columns(config) | data,
        "inner_links": inner,
    }
    return _plain(_common(loaded) | own | _named(objective))


def eval_identity(
    loaded: Loaded,
    links: Mapping[str, str | None],
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    references: Any,
) -> Identity:
    """What an evaluation depends on.

    Args:
        loaded: of the run.
        links: ``trained`` and ``start`` -> hash of these links, None where there are none.
        rows: benchmark -> its rows.
        references: exact lines that stand beside the results.
    """
    config = loaded.config
    data = asdict(config.data)
    own = {
        "stage": "eval",
        "rounds": config.eval_rounds,
        "latent_length": config.latent_length,
        "topology": asdict(config.topology),
        "links": asdict(config.links),
        "evaluation": asdict(config.evaluation),
        "tools": asdict(config.tools),
        "data": {k: data[k] for k in ("name", "grader", "answer_pattern", "translations")},
        "rows": {name: hash_of([dict(row) for row in of]) for name, of in rows.items()},
        "references": hash_of(references),
        "evaluated": dict(links),
    }
    return _plain(_common(loaded) | own)


def _common(loaded: Loaded) -> Identity:
    """What every stage depends on: seed, code, agents, prompts."""
    return {
        "version": version("rmas_train"),
        "seed": loaded.config.seed,
        "agents": {n: {k: a.get(k) for k in AGENT} for n, a in loaded.agents.items()},
        "prompts": hash_of(prompt_texts(loaded.config, loaded.agents)),
        "rendered_prompts": dict(loaded.rendered),
    }


def _columns(config: Config) -> dict[str, Any]:
    return {k: asdict(config.data)[k] for k in ("role_texts", "feedback_texts")}


def _inner_data(loaded: Loaded) -> dict[str, str]:
    return {name: table.fingerprint for name, table in loaded.tables.inner.items()}


def _named(objective: str | None) -> Identity:
    return {"objective": objective} if objective else {}


def _deciding(options: TrainingConfig) -> dict[str, Any]:
    return {k: v for k, v in asdict(options).items() if k not in FREE and v not in LATER.get(k, ())}


def _inner_length(config: Config) -> int | None:
    """Latent length where the inner stage rolls out."""
    return config.latent_length if config.training.inner.inner_states == "rollout" else None


def _plain(identity: Identity) -> Identity:
    """As it is read from a file."""
    plain: Identity = json.loads(json.dumps(identity))
    return plain


def why_other(there: Mapping[str, Any], now: Mapping[str, Any], made_by: str) -> str:
    """What differs between the identity in a file and this run's; empty: nothing.

    Args:
        there: as read; empty in files that were written before there were identities.
        now: of this run.
        made_by: the version that wrote the file.
    """
    if not there:
        return f"version {made_by} did not write down what it depends on"
    return told(differences(there, now))


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
        package_version=version("rmas_train"),
        prompts_hash=hash_of(prompts),
        options_hash=hash_of(identity),
        alignment=dict(alignment),
        identity=identity,
        rendered_prompts=dict(loaded.rendered),
    )
