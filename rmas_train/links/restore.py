"""Load the links of a links folder, without the agents."""

from __future__ import annotations

from pathlib import Path

from rmas_train.config import EdgeConfig, LinksConfig, TopologyConfig
from rmas_train.errors import ConfigError, LinksError
from rmas_train.links.card import CARD, LinksCard, read_card
from rmas_train.links.folder import load_tensors
from rmas_train.links.link_set import LinkSet, draw_links
from rmas_train.topology import Topology, build_topology

WIDEST = 1 << 16


def card_topology(folder: Path, card: LinksCard) -> tuple[Topology, LinksConfig]:
    """Topology and link options of a card.

    Raises:
        LinksError: they are not valid; names the file.
    """
    try:
        edges = [EdgeConfig(**edge) for edge in card.topology["edges"]]
        topology = build_topology(TopologyConfig(**card.topology | {"edges": edges}), card.agents)
        return topology, LinksConfig(**card.links)
    except ConfigError as error:
        raise LinksError(f"{folder / CARD}: {error}") from error


def restore_links(folder: Path) -> tuple[LinksCard, Topology, LinkSet]:
    """Card, topology and links of a complete folder with a valid seal.

    Inner links only, if the card says ``stage: inner``.

    Raises:
        LinksError: missing or damaged folder.
    """
    card = read_card(folder)
    links = draw_like(folder, card)
    load_tensors(folder, links)
    return card, card_topology(folder, card)[0], links.requires_grad_(False)


def draw_like(folder: Path, card: LinksCard) -> LinkSet:
    """New links of the shapes that a card describes; inner ones only if it says ``stage: inner``.

    Raises:
        LinksError: it describes none.
    """
    topology, options = card_topology(folder, card)
    widths = {n: about["width"] for n, about in card.agents.items()}
    if odd := [n for n, width in widths.items() if not 1 <= width <= WIDEST]:
        raise LinksError(
            f"{folder / CARD}: key agents.{odd[0]}.width is {widths[odd[0]]}; copy it again."
        )
    links = draw_links(options, topology, widths, dict.fromkeys(widths, 1.0), seed=0)
    if card.stage == "inner":
        links = LinkSet(dict(links.inner.items()), {})  # type: ignore[arg-type]
    return links
