"""Read the links for ``links report``, from a links folder, a run folder or a released folder."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn import functional as F

from rmas_train.analysis.link_report import VECTORS, InspectedLink
from rmas_train.errors import LinksError
from rmas_train.links.card import CARD
from rmas_train.links.folder import find_links
from rmas_train.links.modules import Link
from rmas_train.links.restore import restore_links
from rmas_train.release.families import FAMILIES, Family, task_of
from rmas_train.release.released import (
    INNER_MANIFEST,
    OUTER,
    Repository,
    find_repositories,
    read_inner,
    read_outer,
)

EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight")


def find_inspected(folder: Path, task: str | None) -> dict[str, InspectedLink]:
    """Full name -> link, with all known facts about it.

    Raises:
        LinksError: there are no links, or they are damaged.
    """
    if not folder.is_dir():
        raise LinksError(f"{folder}: no such folder; give a links, run or released folder.")
    if any((c / CARD).is_file() for c in (folder, folder / "links", folder / "outer" / "links")):
        if task is not None:
            raise LinksError(f"--task={task}: {folder} is no released folder; leave --task out.")
        return _ours(find_links(folder))
    if (folder / "inner" / "links" / CARD).is_file():
        return _ours(folder / "inner" / "links")
    return _released(folder, task)


def _ours(folder: Path) -> dict[str, InspectedLink]:
    """Links of this format; ``outer/start`` beside them holds the outer links' start."""
    card, topology, links = restore_links(folder)
    named = links.links()
    begun: dict[str, Link] = {}
    if (folder.parent / "start" / CARD).is_file():
        begun = restore_links(folder.parent / "start")[2].links()
    sources = {f"outer.{e.key}": e.source for e in topology.edges}
    inputs = {n: embeddings(a["model"], a["width"]) for n, a in card.agents.items()}
    files = card.released.get("files", {})
    inspected = {}
    for name, link in named.items():
        agent = sources.get(name) or name.removeprefix("inner.")
        is_applied = name in sources and card.links["edge_input"] == "inner"
        inspected[name] = InspectedLink(
            link,
            before=named[f"inner.{agent}"] if is_applied else None,
            # Inner links do not move in the outer stage, unless asked to.
            start=begun.get(name) if name in sources else None,
            dtype=str(files.get(name, {}).get("dtype", "float32")),
            inputs=inputs[agent],
        )
    return inspected


def _released(folder: Path, task: str | None) -> dict[str, InspectedLink]:
    """The links of a released system, as far as they are there; the outer repository is enough."""
    agents = {agent for family in FAMILIES for edge in family.keys for agent in edge.split("-")}
    found = find_repositories(folder, sorted(agents))
    if OUTER not in found:
        raise LinksError(
            f"{folder}: no {CARD} and no released links ({INNER_MANIFEST}, outerlink_config.json) "
            "there or one level below; give a links, run or released folder."
        )
    family = _family(found[OUTER])
    task = task_of(family, task)
    outer = read_outer(found[OUTER], family, task)
    names = sorted({agent for edge in family.keys for agent in edge.split("-")})
    inner = {n: read_inner(found[n], task) for n in names if n in found}
    inspected = {
        f"inner.{n}": InspectedLink(one.link(), dtype=one.dtype) for n, one in inner.items()
    }
    for edge, one in outer.items():
        source = edge.partition("-")[0]
        before = inner[source].link() if source in inner else None
        if before is not None and before.d_target != one.d_source:
            raise LinksError(
                f"{one.path}: key 'ln_source.weight' has shape ({one.d_source},), but {source}'s "
                f"inner link has width ({before.d_target},); give files of the same system."
            )
        inspected[f"outer.{edge}"] = InspectedLink(one.link(), before=before, dtype=one.dtype)
    return inspected


def _family(repository: Repository) -> Family:
    """The first family whose legacy keys, file names or manifest are in the repository."""
    text = " ".join(sorted(repository.names()))
    if "outerlink_config.json" in repository.names():
        text += repository.get("outerlink_config.json").read_text(
            encoding="utf-8", errors="replace"
        )
    for family in FAMILIES:
        if all(key in text for key in family.keys.values()):
            return family
    raise LinksError(
        f"{repository.where}: the legacy keys of no released system "
        f"({', '.join(f.name for f in FAMILIES)}); give all outer links of one."
    )


def embeddings(model: str, width: int) -> tuple[Tensor, str] | None:
    """Evenly spaced rows of a local model's token embeddings, LayerNormed; None if not local."""
    if not Path(model).is_dir():
        return None
    for path in sorted(Path(model).glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                keys = [k for k in file.keys() if k.endswith(EMBEDDINGS)]  # noqa: SIM118
                if keys and file.get_slice(keys[0]).get_shape()[1] == width:
                    table = file.get_tensor(keys[0])
                    step = max(1, len(table) // VECTORS)
                    rows = table[::step][:VECTORS].to(torch.float32)
                    what = f"{len(rows)} evenly spaced token embeddings, LayerNormed"
                    return F.layer_norm(rows, (width,)), what
        except (SafetensorError, OSError):
            continue
    return None
