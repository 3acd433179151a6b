"""The links folder: ``links.safetensors`` and ``links.json``. No pickle, nothing of the agents.

Keys: ``inner.<agent>.<parameter>`` and ``outer.<source>-<target>.<parameter>``.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rmas_train.errors import LinksError, UnknownWeightsWarning
from rmas_train.links.card import (
    CARD,
    FORMAT,
    TENSORS,
    LinksCard,
    read_card,
    read_values,
)
from rmas_train.links.link_set import LinkSet
from rmas_train.support.files import check_inside, new_folder, write_json
from rmas_train.support.reading import short


def save_links(folder: Path, links: LinkSet, card: LinksCard) -> None:
    """Write a links folder. An existing one is replaced only when the new one is complete.

    Raises:
        LinksError: a parameter is NaN or infinite; nothing is written.
    """
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in links.state_dict().items()}
    check_finite(folder, tensors, "lower training.<stage>.lr and train again")
    with new_folder(folder) as work:
        save_file(tensors, work / TENSORS, metadata={"format": str(FORMAT)})
        values = asdict(card)
        write_json(work / CARD, values | {"seal": seal_of(values, work / TENSORS)})


def seal_of(card: Mapping[str, Any], tensors: Path) -> str:
    """sha256 of a card without its seal, together with the tensors' file."""
    text = json.dumps({k: v for k, v in card.items() if k != "seal"}, sort_keys=True)
    digest = hashlib.sha256(tensors.read_bytes())
    return hashlib.sha256(f"{text} {digest.hexdigest()}".encode()).hexdigest()


def check_finite(where: Path, tensors: Mapping[str, Tensor], remedy: str) -> None:
    for key, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise LinksError(f"{where}: key {key} holds NaN or infinite numbers; {remedy}.")


def find_links(folder: Path) -> Path:
    """The links folder: the folder itself, or inside a run folder or a stage's folder.

    Raises:
        LinksError: there is none.
    """
    for candidate in (folder, folder / "links", folder / "outer" / "links"):
        if (candidate / CARD).is_file():
            return candidate
    raise LinksError(f"{folder}: no {CARD} there; give a links folder or a run folder with one.")


def load_tensors(folder: Path, links: LinkSet) -> None:
    """Read the tensors into ``links``, in place. On an error nothing is changed.

    Raises:
        LinksError: corrupt file, missing or unknown key, another shape or dtype, NaN, or a wrong
            seal.
    """
    path = folder / TENSORS
    check_inside(path)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise LinksError(f"{path}: cannot be read ({reason}); train or copy it again.") from error
    wanted = links.state_dict()
    for key in sorted(wanted.keys() | tensors.keys()):
        if key not in tensors or key not in wanted:
            kind = "missing" if key not in tensors else "unknown"
            raise LinksError(
                f"{path}: {kind} key {key}; these links are of another system or variant; train "
                "them again, or choose others."
            )
        if tensors[key].shape != wanted[key].shape:
            raise LinksError(
                f"{path}: key {key} has shape {tuple(tensors[key].shape)}, this system needs "
                f"{tuple(wanted[key].shape)}; these links are of other agents, train them again."
            )
        if tensors[key].dtype != wanted[key].dtype:
            raise LinksError(
                f"{path}: key {key} is {tensors[key].dtype}, not {wanted[key].dtype}; train or "
                "copy it again."
            )
    check_finite(path, tensors, "train or copy it again")
    check_seal(folder)
    links.load_state_dict(tensors)


def check_seal(folder: Path) -> None:
    """Check that card and tensors are, bit by bit, as they were written together.

    Raises:
        LinksError: they are not.
    """
    read_card(folder)
    card = read_values(folder)  # the keys as written: older cards have fewer
    if card.get("seal") and card["seal"] != seal_of(card, folder / TENSORS):
        raise LinksError(
            f"{folder}: {CARD} and {TENSORS} are not what was written together (key seal); copy "
            "the folder again, or train again."
        )


def check_agents(folder: Path, card: LinksCard, agents: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that the links were made for these agents; warn if they do not name the weights.

    Raises:
        LinksError: names the agent and what differs.
    """
    path = folder / CARD
    if set(card.agents) != set(agents):
        raise LinksError(
            f"{path}: made for agents {sorted(card.agents)}, this run has {sorted(agents)}; "
            "train links for these agents, or choose others with agents=."
        )
    unknown = sorted(name for name, made in card.agents.items() if made["fingerprint"] == "")
    if unknown:  # shown once: Python prints the same warning from the same place a single time
        warnings.warn(
            f"{path}: the links do not say which weights of {', '.join(unknown)} they were trained "
            "with; only the widths are compared.",
            UnknownWeightsWarning,
            stacklevel=1,
        )
    for name, seen in agents.items():
        made = card.agents[name]
        for key in ("width",) if name in unknown else ("width", "fingerprint"):
            if made.get(key) != seen[key]:
                raise LinksError(
                    f"{path}: made for {name} = {made.get('model')} ({key} "
                    f"{str(made.get(key))[:12]}), this run has {seen['model']} ({key} "
                    f"{str(seen[key])[:12]}); train links for these agents, or choose others "
                    "with agents=."
                )


def check_rendered(
    folder: Path,
    card: LinksCard,
    prompts: Mapping[str, Mapping[str, Any]],
    rendered: Mapping[str, Mapping[str, str]],
) -> None:
    """Check that prompts of the same texts are written by the chat templates as in training.

    Args:
        folder, card: of the links.
        prompts: agent -> texts of its prompt file now; others than in training are not compared.
        rendered: agent -> ``Prompt.rendered`` now.

    Raises:
        LinksError: names the agent and what differs.
    """
    for name, now in rendered.items():
        then = card.rendered_prompts.get(name)
        if then is None or prompts.get(name) != card.prompts.get(name):
            continue
        if then.get("sha256") != now["sha256"]:
            key = next((k for k in now if then.get(k) != now[k] and k != "sha256"), "sha256")
            raise LinksError(
                f"{folder / CARD}: key rendered_prompts.{name}.{key}: trained with "
                f"{short(then.get(key))}, the chat template of now writes {short(now[key])}; use "
                f"the model's files of then, set agents.{name}.template as then, or train again."
            )
