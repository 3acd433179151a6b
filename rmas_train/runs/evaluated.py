"""Links that are evaluated, their start, and what an evaluation depends on."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rmas_train.errors import LinksError
from rmas_train.links.card import CARD, read_card
from rmas_train.links.folder import check_agents, check_rendered, load_tensors
from rmas_train.links.modules import LinkSet
from rmas_train.runs.identity import Identity, as_read, common
from rmas_train.runs.load import Loaded, hash_of, prompt_texts


def start_of(links: Path) -> Path | None:
    """The links as the outer stage began that ended with these; None: not kept, or another's.

    Older folders do not say what they are of; there, the one beside the links is taken.
    """
    ended = {k: v for k, v in read_card(links).identity.items() if k != "step"}
    for folder in (links / "start", links.parent / "start"):
        if (folder / CARD).is_file() and read_card(folder).identity == ended:
            return folder
    return None


def read_links(loaded: Loaded, folder: Path, like: LinkSet) -> LinkSet:
    """Links from a folder, checked against this set-up's agents; ``like`` has their shapes."""
    card = read_card(folder)
    check_agents(folder, card, loaded.agents)
    prompts = prompt_texts(loaded.config, loaded.rendered)
    check_rendered(folder, card, prompts, loaded.rendered)
    links = copy.deepcopy(like)
    load_tensors(folder, links)
    return links


def is_of(folder: Path, identity: Identity) -> bool:
    """Whether a links folder is there and has this identity."""
    try:
        return read_card(folder).identity == identity
    except LinksError:
        return False


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
    if loaded.single_prompt is not None:
        own["single_prompt"] = loaded.single_prompt
    return as_read(common(loaded) | own)
