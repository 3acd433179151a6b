"""A links folder from any checkpoint: links of the middle of a training, to answer and evaluate."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from rmas_train.errors import CheckpointError, LinksError
from rmas_train.links.card import CARD, LinksCard, parse_card, read_card
from rmas_train.links.folder import save_links
from rmas_train.links.link_set import LinkSet
from rmas_train.links.restore import draw_like
from rmas_train.support.files import new_folder
from rmas_train.training.checkpoint import Checkpoint, read

PREFIX = "links."  # of the links' parameters among those of an objective


def links_from_checkpoint(checkpoint: Path, out: Path) -> tuple[LinksCard, int]:
    """Write a links folder, with the run's config and start beside the links where they are known.

    Args:
        checkpoint: folder ``step_<n>``.
        out: new folder.

    Returns:
        the card and the checkpoint's step.

    Raises:
        CheckpointError: missing or damaged, or it does not say what its links are.
        LinksError: ``out`` is there already.
    """
    found = read(checkpoint)
    stage_folder = checkpoint.resolve().parent.parent
    card = card_of(checkpoint, found, stage_folder)
    if out.exists():
        raise LinksError(f"{out}: there already; choose a new folder.")
    links = fill(checkpoint, draw_like(checkpoint, card), found.links)
    with new_folder(out) as work:
        save_links(work / "links", links, card)
        for file in (work / "links").iterdir():
            file.rename(work / file.name)
        (work / "links").rmdir()
        copy_beside(stage_folder, card, work)
    return card, found.step


def card_of(checkpoint: Path, found: Checkpoint, stage_folder: Path) -> LinksCard:
    """What the links are: as the checkpoint says, or for older ones a card in the run's folder."""
    if found.card:
        try:
            card = parse_card(checkpoint / "state.json", found.card)
        except LinksError as error:
            raise CheckpointError(str(error)) from error
    else:
        card = older_card(checkpoint, found, stage_folder)
    step = {} if is_last(found) else {"step": found.step}
    return replace(card, identity=dict(card.identity) | step if card.identity else {}, seal="")


def is_last(found: Checkpoint) -> bool:
    """Whether the run was complete with this checkpoint."""
    steps: Any = found.identity.get("training")
    return isinstance(steps, Mapping) and steps.get("steps") == found.step


def older_card(checkpoint: Path, found: Checkpoint, stage_folder: Path) -> LinksCard:
    """The card of ``start`` or ``links`` of the same stage and agents."""
    for folder in (stage_folder / "start", stage_folder / "links"):
        if not (folder / CARD).is_file():
            continue
        card = read_card(folder)
        agents = {n: about["fingerprint"] for n, about in card.agents.items()}
        if found.identity.get("agents") == agents:
            return replace(card, stage=str(found.identity.get("stage")))
    raise CheckpointError(
        f"{checkpoint}: does not say which agents, topology and prompts its links are for, and "
        f"{stage_folder} has no links of the same agents; go on with resume={checkpoint} instead."
    )


def fill(checkpoint: Path, links: LinkSet, values: Mapping[str, Tensor]) -> LinkSet:
    """These values in links of the right shapes.

    Raises:
        CheckpointError: they do not fit.
    """
    ours = {k.removeprefix(PREFIX): v for k, v in values.items() if k.startswith(PREFIX)}
    try:
        links.load_state_dict(ours)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{checkpoint}: its links do not fit its card: {reason}") from error
    return links


def copy_beside(stage_folder: Path, card: LinksCard, work: Path) -> None:
    """The run's config, for ``stage=eval run=``, and the start, for the control of this name."""
    config, start = stage_folder / "config.yaml", stage_folder / "start"
    if config.is_file():
        shutil.copyfile(config, work / config.name)
    if (start / CARD).is_file():
        identity = {k: v for k, v in card.identity.items() if k != "step"}
        if read_card(start).identity == identity:
            shutil.copytree(start, work / "start")
