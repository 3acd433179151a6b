"""Export links as the release's files: a folder per agent, and one with the outer links."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rmas_train.errors import LinksError
from rmas_train.links.card import CARD, LinksCard
from rmas_train.links.link_set import LinkSet
from rmas_train.links.restore import restore_links
from rmas_train.release.families import Family, family_of, task_of
from rmas_train.release.released import (
    ADAPTER,
    INNER_CONFIG,
    INNER_MANIFEST,
    INNER_TYPES,
    OUTER_CONFIG,
    OUTER_MANIFEST,
    OUTER_TYPES,
)
from rmas_train.release.released_file import write_link
from rmas_train.support.files import new_folder, write_json

LAYOUTS = ("hub", "local")
OUTER_FOLDER = "outerlinks"
# The release's `mas_shape` of a system, where a source shows it.
SHAPES = {"sequential": "chain"}


def export_links(folder: Path, out: Path, task: str | None, layout: str) -> list[str]:
    """Write the released layout, without any base model.

    Args:
        folder: links folder.
        out: new folder; it gets a sub-folder per agent and ``outerlinks``.
        task: task in the file names, in families with files per task; None: as imported, or
            ``math``.
        layout: ``hub`` (names and manifests as published) or ``local`` (as locally trained).

    Returns:
        lines that say what the released layout does not keep.

    Raises:
        LinksError: the released layout cannot express these links, or ``out`` is not empty.
    """
    card, topology, links = restore_links(folder)
    _check_expressible(folder / CARD, card)
    family = family_of((e.key for e in topology.edges), f"{folder / CARD}")
    if task is not None and not family.has_tasks:
        raise LinksError(f"--task={task}: {family.name} has one set of links; leave --task out.")
    task = task_of(family, task or card.released.get("task"))
    if out.is_symlink() or out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise LinksError(f"{out}: is there and not empty; choose a new folder.")
    with new_folder(out) as work:
        for agent in topology.agents:
            _write_inner(work / agent, links, card, agent, task, layout)
        if links.outer:
            _write_outer(work / OUTER_FOLDER, links, card, family, task, layout)
    return _lost(card, links)


def _check_expressible(path: Path, card: LinksCard) -> None:
    """Check that the released loader can use these links: it knows one module and one use of it.

    Raises:
        LinksError: names the option that it cannot use.
    """
    known = {"variant": "ln_res_2layer", "edge_input": "inner", "shared_space": None}
    for key, value in known.items():
        if card.links[key] != value:
            shown = "null" if value is None else value
            raise LinksError(
                f"{path}: links.{key}={card.links[key]} cannot be stored in the released layout, "
                f"which is links.{key}={shown}; train links with that, or keep this format."
            )


def _lost(card: LinksCard, links: LinkSet) -> list[str]:
    notes = ["the released layout keeps no prompts, rounds, latent_length, topology or checksums"]
    if any(link.scale.item() != 1 for link in links.links().values()):
        notes.append(
            f"links.norm={card.links['norm']}: each link's scale is multiplied into its closing "
            "LayerNorm's gain and bias"
        )
    if not links.outer:
        notes.append("inner links only: no folder of outer links")
    return notes


def _dtype(card: LinksCard, name: str) -> str:
    files: Mapping[str, Any] = card.released.get("files", {})
    return str(files.get(name, {}).get("dtype", "float32"))


def _write_inner(
    folder: Path, links: LinkSet, card: LinksCard, agent: str, task: str | None, layout: str
) -> None:
    folder.mkdir()
    link = links.links()[f"inner.{agent}"]
    is_named = layout == "hub" and task is not None
    name = f"adapter({task}).pt" if is_named else ADAPTER
    write_link(folder / name, link, _dtype(card, f"inner.{agent}"))
    if is_named:
        manifest = {"format_version": 1, "tasks": {task: {ADAPTER: name}}}
        write_json(folder / INNER_MANIFEST, manifest)
    if layout == "local":
        write_json(folder / INNER_CONFIG, {"adapter_type": INNER_TYPES[0]})


def _write_outer(
    folder: Path, links: LinkSet, card: LinksCard, family: Family, task: str | None, layout: str
) -> None:
    folder.mkdir()
    entries = []
    for edge, key in family.keys.items():
        link = links.links()[f"outer.{edge}"]
        source, target = (name.capitalize() for name in edge.split("-"))
        suffix = f"({task})" if task else ""
        name = f"{source}-{target}-Outerlink{suffix}.pt" if layout == "hub" else f"{key}.pt"
        write_link(folder / name, link, _dtype(card, f"outer.{edge}"))
        entry: dict[str, Any] = {
            "legacy_key": key,
            "filename": name,
            "adapter_type": OUTER_TYPES[0],
        }
        entry |= {"in_dim": link.d_source, "out_dim": link.d_target}
        roles = {"source_role": source, "target_role": target} if layout == "hub" else {}
        entries.append(entry | roles)
    manifest: dict[str, Any] = {"format_version": 1, "paradigm": family.name}
    if layout == "local":
        manifest |= {"legacy_config_filename": OUTER_CONFIG, "adapters": entries}
        write_json(folder / OUTER_CONFIG, _local_config(card, family, task, entries))
    elif task is None:
        manifest["adapters"] = entries
    else:
        manifest["tasks"] = {task: {"task": task, "adapters": entries}}
    write_json(folder / OUTER_MANIFEST, manifest)


def _local_config(
    card: LinksCard, family: Family, task: str | None, entries: list[dict[str, Any]]
) -> dict[str, Any]:
    """``outer_adapter_config.json``, as the release writes it after local training."""
    config: dict[str, Any] = {"mas_task": task or "math", "num_recursive_rounds": card.rounds}
    if family.name in SHAPES:
        config["mas_shape"] = SHAPES[family.name]
    for i, agent in enumerate(card.topology["order"], start=1):
        config[f"agent{i}_model_name_or_path"] = card.agents[agent]["model"]
        config[f"agent{i}_inner_aligner_path"] = f"../{agent}"
    for entry in entries:
        for key, name in (("adapter_type", "type"), ("in_dim", "in_dim"), ("out_dim", "out_dim")):
            config[f"{entry['legacy_key']}_{name}"] = entry[key]
    return config
