"""The links folder: ``links.safetensors`` and ``links.json``. No pickle, nothing of the agents.

Keys: ``inner.<agent>.<parameter>`` and ``outer.<source>-<target>.<parameter>``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from rmas_train.errors import LinksError
from rmas_train.files import new_folder, write_json
from rmas_train.links.linkset import LinkSet
from rmas_train.links.trust import check_inside, check_names

FORMAT = 1
TENSORS, CARD = "links.safetensors", "links.json"


@dataclass(kw_only=True)
class Card:
    """What ``links.json`` says about the tensors beside it.

    Attributes:
        stage: what was trained last: ``inner``, ``outer`` or ``start`` (nothing).
        agents: name -> model, revision, dtype, width and fingerprint (sha256 of the weights).
        topology, links: the options of these names.
        prompts: agent -> texts of its prompt file, so that a folder answers by itself.
        rounds, latent_length: as trained; None for inner links.
        data_fingerprint: sha256 of the training file.
        alignment: per edge, shared tokens and cosines of the aligned start.
    """

    stage: str
    agents: dict[str, dict[str, Any]]
    topology: dict[str, Any]
    links: dict[str, Any]
    prompts: dict[str, dict[str, str | None]]
    rounds: int | None
    latent_length: int | None
    max_new_tokens: int
    data_fingerprint: str
    package_version: str
    prompts_hash: str
    options_hash: str = ""
    alignment: dict[str, dict[str, float]] = field(default_factory=dict)
    format: int = FORMAT


def save_links(folder: Path, links: LinkSet, card: Card) -> None:
    """Write a links folder; an existing one stays whole until the new one is."""
    tensors = {k: v.detach().cpu().contiguous() for k, v in links.state_dict().items()}
    with new_folder(folder) as work:
        save_file(tensors, work / TENSORS, metadata={"format": str(FORMAT)})
        write_json(work / CARD, asdict(card))


def find_links(folder: Path) -> Path:
    """The links folder in a run folder, a stage's folder, or the folder itself.

    Raises:
        LinksError: there is none.
    """
    for candidate in (folder, folder / "links", folder / "outer" / "links"):
        if (candidate / CARD).is_file():
            return candidate
    raise LinksError(f"{folder}: no {CARD} there; give a links folder or a run folder with one.")


def read_card(folder: Path) -> Card:
    """What a links folder says about itself.

    Raises:
        LinksError: missing, not JSON, of another format, or with other keys.
    """
    path = folder / CARD
    check_inside(path)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LinksError(f"{path}: {error.strerror}; give a links folder.") from error
    except ValueError as error:
        raise LinksError(
            f"{path}: not JSON ({error}); the folder is damaged, train again."
        ) from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        seen = values.get("format") if isinstance(values, dict) else None
        raise LinksError(
            f"{path}: format {seen}, this version reads {FORMAT}; use a matching version."
        )
    check_names(path, values)
    try:
        return Card(**values)
    except TypeError as error:
        raise LinksError(f"{path}: {error}; the file is damaged.") from error


def load_tensors(folder: Path, links: LinkSet) -> None:
    """Read the tensors into ``links``, in place; nothing is changed if anything does not fit.

    Raises:
        LinksError: corrupt file, missing or unknown key, another shape.
    """
    path = folder / TENSORS
    check_inside(path)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise LinksError(f"{path}: cannot be read ({reason}); train or copy it again.") from error
    wanted = links.state_dict()
    for key in sorted(wanted.keys() | tensors.keys()):
        if key not in tensors or key not in wanted:
            kind = "missing" if key not in tensors else "unknown"
            raise LinksError(
                f"{path}: {kind} key {key}; these links are of another system or variant."
            )
        if tensors[key].shape != wanted[key].shape:
            raise LinksError(
                f"{path}: key {key} has shape {tuple(tensors[key].shape)}, this system needs "
                f"{tuple(wanted[key].shape)}; these links are of other agents."
            )
    links.load_state_dict(tensors)


def check_agents(folder: Path, card: Card, agents: Mapping[str, Mapping[str, Any]]) -> None:
    """The links were made for these agents.

    Raises:
        LinksError: names the agent and what differs.
    """
    path = folder / CARD
    if set(card.agents) != set(agents):
        raise LinksError(
            f"{path}: made for agents {sorted(card.agents)}, this run has {sorted(agents)}; "
            "train links for these agents, or choose others with agents=."
        )
    for name, seen in agents.items():
        made = card.agents[name]
        for key in ("width", "fingerprint"):
            if made.get(key) != seen[key]:
                raise LinksError(
                    f"{path}: made for {name} = {made.get('model')} ({key} "
                    f"{str(made.get(key))[:12]}), this run has {seen['model']} ({key} "
                    f"{str(seen[key])[:12]}); train links for these agents, or choose others "
                    "with agents=."
                )
