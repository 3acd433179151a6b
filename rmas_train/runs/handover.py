"""What one stage takes from another: inner links for the outer stage, links for an evaluation."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path

from rmas_train.config import Config
from rmas_train.errors import LinksError
from rmas_train.links.folder import (
    CARD,
    TENSORS,
    check_agents,
    find_links,
    load_tensors,
    read_card,
)
from rmas_train.links.modules import LinkSet
from rmas_train.runs.identity import Identity, inner_identity, why_other
from rmas_train.runs.load import Loaded


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
    return find_links(folder)


def check_own(own: Path, loaded: Loaded) -> None:
    """The inner links in the run folder are what this run would make; imported ones always fit.

    Raises:
        LinksError: names what differs, and how to take them all the same.
    """
    card = read_card(own)
    check_agents(own, card, loaded.agents)
    if card.released:
        return
    other = why_other(card.identity, inner_identity(loaded), card.package_version)
    if other:
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
    links = copy.deepcopy(like)
    load_tensors(folder, links)
    return links


def inner_only(links: LinkSet) -> LinkSet:
    """The same inner links without the outer ones."""
    return LinkSet(dict(links.inner.items()), {})  # type: ignore[arg-type]


def is_of(folder: Path, identity: Identity) -> bool:
    """Whether a links folder is there and has this identity."""
    try:
        return read_card(folder).identity == identity
    except LinksError:
        return False
