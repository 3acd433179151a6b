"""Checks of a links folder from another person: valid names, and only files of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rmas_train.config.run import AGENT_NAME
from rmas_train.errors import LinksError
from rmas_train.support.redact import CONTROL

LONGEST = 4096  # characters of a path
HUB_REPOSITORY = re.compile(r"models--[\w.-]+")


def check_inside(path: Path) -> None:
    """Check that a file of a links folder is not a symbolic link to another place.

    The hub's cache has symbolic links from ``models--<name>/snapshots/<commit>`` to its own
    ``blobs``; these are allowed.

    Raises:
        LinksError: the file is a symbolic link out of the folder.
    """
    try:
        real, folder = path.resolve(), path.parent.resolve()
    except (OSError, RuntimeError) as error:
        raise LinksError(f"{path}: a link that leads nowhere; copy the file itself.") from error
    roots = [folder, *(root / "blobs" for root in _hub_repositories(folder))]
    if not any(real.is_relative_to(root) for root in roots):
        raise LinksError(
            f"{path}: a symbolic link to {real}, outside the folder; copy the file itself there."
        )


def _hub_repositories(folder: Path) -> Iterator[Path]:
    for parent in folder.parents:
        if parent.name == "snapshots" and HUB_REPOSITORY.fullmatch(parent.parent.name):
            yield parent.parent


def check_names(path: Path, values: Mapping[str, Any]) -> None:
    """Check that agents' names are valid in a config, so that no name is a path or several lines.

    Raises:
        LinksError: names the part of ``links.json`` and quotes the beginning of its value.
    """
    for where, name in _names(values):
        if not isinstance(name, str) or not AGENT_NAME.fullmatch(name):
            raise LinksError(
                f"{path}: {where}: {_quote(name)} is no agent's name ([a-z][a-z0-9_]*, at most 64 "
                "characters); use links from a source that you trust."
            )
    for where, text in _texts(values):
        if text is not None and (
            not isinstance(text, str) or len(text) > LONGEST or CONTROL.search(text)
        ):
            raise LinksError(
                f"{path}: {where}: {_quote(text)} is no line of text of at most {LONGEST} "
                "characters; use links from a source that you trust."
            )


def _names(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    topology = _mapping(values, "topology")
    for key in ("agents", "prompts"):
        yield from ((key, name) for name in _mapping(values, key))
    yield from (("topology.order", name) for name in _list(topology, "order"))
    for edge in _list(topology, "edges"):
        if isinstance(edge, Mapping):
            yield from (("topology.edges", edge.get(end)) for end in ("source", "target"))
    if "decoder" in topology:
        yield "topology.decoder", topology["decoder"]


def _texts(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "topology.name", _mapping(values, "topology").get("name")
    for name, about in _mapping(values, "agents").items():
        if isinstance(about, Mapping):
            yield from ((f"agents.{name}.{k}", about.get(k)) for k in ("model", "revision"))


def _mapping(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The value, or an empty mapping if it is another type; reading the card reports that."""
    found = values.get(key)
    return found if isinstance(found, Mapping) else {}


def _list(values: Mapping[str, Any], key: str) -> list[Any]:
    found = values.get(key)
    return found if isinstance(found, list) else []


def _quote(value: Any) -> str:
    shown = ascii(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
