"""A library of pairwise links: trained once between two models, composed into any topology.

A library is a folder of links folders. Each edge of each of them is a pair: the model that sends,
the model that receives, and how the link reads and writes. A system whose edges are all there is
composed without any training.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from torch import Tensor

from rmas_train.config import Config, LinksConfig
from rmas_train.errors import LinksError
from rmas_train.links.card import CARD, TENSORS, LinksCard, read_card
from rmas_train.links.folder import check_seal, find_links
from rmas_train.links.link_set import LinkSet, draw_links, form_of
from rmas_train.links.restore import restore_links
from rmas_train.runs.load import hash_of, prompt_texts
from rmas_train.support.files import new_folder, write_json
from rmas_train.support.reading import parse_json
from rmas_train.support.version import VERSION
from rmas_train.topology import Edge, build_topology

SCORES = "scores.json"
SCORE_KEYS = ("task", "system", "control", "rounds", "n", "accuracy", "ci95")


@dataclass(frozen=True)
class Pair:
    """An edge of a links folder in a library.

    Attributes:
        name: of the folder.
        folder: the links folder.
        edge: its key there; in a shared space of any two of its agents.
        card: of the folder.
        scores: rows of the evaluation that was there when it was added.
    """

    name: str
    folder: Path
    edge: str
    card: LinksCard
    scores: Sequence[Mapping[str, Any]]

    @property
    def source(self) -> dict[str, Any]:
        return self.card.agents[self.edge.split("-")[0]]

    @property
    def target(self) -> dict[str, Any]:
        return self.card.agents[self.edge.split("-")[1]]

    @property
    def is_trained(self) -> bool:
        """Whether it was an edge in training, and not only two ends of a shared space."""
        edges = self.card.topology["edges"]
        return self.edge in {Edge(edge["source"], edge["target"]).key for edge in edges}

    @property
    def tasks(self) -> list[str]:
        return list(dict.fromkeys(str(row["task"]) for row in self.scores))

    def joins(self, source: str, target: str) -> bool:
        return self.source["model"] == source and self.target["model"] == target


def add(run: Path, library: Path, name: str) -> list[Pair]:
    """Copy a run's links, or a links folder, into a library, with the scores of its evaluation.

    Raises:
        LinksError: no links there, the name is taken, or it is no name of a folder.
    """
    links = find_links(run)
    check_seal(links)
    if not name or Path(name).name != name or name.startswith("."):
        raise LinksError(f"links library: {name!r} is no name of a folder; give another --name.")
    target = library / name
    if target.exists():
        raise LinksError(f"{target}: is there already; give another --name, or remove it.")
    card = read_card(links)
    if card.stage == "inner":
        raise LinksError(f"{links}: inner links alone; add a run whose outer links are trained.")
    scores = _scores(run / "eval" / "results.json", "evaluate the run again")
    with new_folder(target) as work:
        for file in (CARD, TENSORS):
            shutil.copyfile(links / file, work / file)
        write_json(work / SCORES, {"rows": scores})
    return [pair for pair in pairs(library) if pair.name == name]


def _scores(path: Path, remedy: str) -> list[dict[str, Any]]:
    """Rows of a result file, or of a copy of it; none where there is no file."""
    try:
        rows = parse_json(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []
        return [{key: row[key] for key in SCORE_KEYS} for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LinksError(f"{path}: cannot be read ({error}); {remedy}.") from error


def pairs(library: Path) -> list[Pair]:
    """Every pair of a library, by folder and edge.

    Raises:
        LinksError: no such folder, or a damaged one in it.
    """
    if not library.is_dir():
        raise LinksError(f"{library}: no such folder; make one with links library add.")
    found = []
    for folder in sorted(p for p in library.iterdir() if (p / CARD).is_file()):
        card, scores = read_card(folder), _scores(folder / SCORES, "add the links again")
        found += [Pair(folder.name, folder, key, card, scores) for key in _edges(card)]
    return found


def _edges(card: LinksCard) -> list[str]:
    """Keys of the edges; in a shared space, first the trained ones, then those of other ends."""
    edges = card.topology["edges"]
    found = [Edge(edge["source"], edge["target"]).key for edge in edges]
    if card.links["shared_space"] is not None:
        ends = product((edge["source"] for edge in edges), (edge["target"] for edge in edges))
        found += [Edge(source, target).key for source, target in ends if source != target]
    return list(dict.fromkeys(found))


def choose(found: Sequence[Pair], edge: Edge, config: Config, names: Sequence[str]) -> Pair:
    """The pair for an edge of a system.

    Args:
        found: of the library.
        edge: of the system.
        config: agents, links and data of the system.
        names: folders to take pairs from; none: all.

    Raises:
        LinksError: there is none, or several; says which pairs there are.
    """
    models = config.agents[edge.source].model, config.agents[edge.target].model
    wanted = form_of(config.links)
    same = [p for p in found if p.joins(*models) and (not names or p.name in names)]
    fit = [pair for pair in same if form_of(LinksConfig(**pair.card.links)) == wanted]
    if len(fit) > 1:  # one for this task, if there is one
        fit = [pair for pair in fit if config.data.name in pair.tasks] or fit
    if len(fit) == 1:
        return fit[0]
    if fit:
        listed = ", ".join(pair.name for pair in fit)
        raise LinksError(
            f"edge {edge.key}: several links from {models[0]} to {models[1]} ({listed}); name the "
            "one that is meant with --use."
        )
    if same:
        other = form_of(LinksConfig(**same[0].card.links))
        key = next(key for key in wanted if other[key] != wanted[key])
        raise LinksError(
            f"edge {edge.key}: the link in {same[0].name} has links.{key}={other[key]}, this "
            f"system {wanted[key]}; set links.{key}={other[key]}, or train another link."
        )
    there = sorted({f"{p.source['model']} to {p.target['model']}" for p in found})
    raise LinksError(
        f"edge {edge.key}: no link from {models[0]} to {models[1]} in the library; there: "
        f"{', '.join(there) or 'nothing'}. Train one, and add it."
    )


def compose(
    config: Config, library: Path, names: Sequence[str] = ()
) -> tuple[LinkSet, LinksCard, dict[str, Pair]]:
    """Links of a system, from a library.

    Args:
        config: agents, topology, prompts, links, rounds and latent length.
        library: where the pairs are.
        names: folders to take pairs from; none: all.

    Returns:
        the links, their card, and edge -> pair.

    Raises:
        LinksError: see ``choose``; or an agent's links were trained with two inner links, or two
            versions of its weights.
    """
    topology, there = build_topology(config.topology, config.agents), pairs(library)
    chosen = {edge.key: choose(there, edge, config, names) for edge in topology.edges}
    agents = _agents(chosen)
    widths = {name: about["width"] for name, about in agents.items()}
    links = draw_links(config.links, topology, widths, dict.fromkeys(widths, 1.0), config.seed)
    _fill(links, chosen, config)
    prompts = prompt_texts(config, topology.agents)
    card = LinksCard(
        stage="outer",
        agents=agents,
        topology=asdict(config.topology),
        links=asdict(config.links),
        prompts=prompts,
        rounds=config.rounds,
        latent_length=config.latent_length,
        max_new_tokens=config.evaluation.max_new_tokens,
        data_fingerprint="",
        package_version=VERSION,
        prompts_hash=hash_of(prompts),
        released={"library": {key: f"{p.name}, {p.edge}" for key, p in chosen.items()}},
    )
    return links.requires_grad_(False), card, chosen


def _fill(links: LinkSet, chosen: Mapping[str, Pair], config: Config) -> None:
    """Outer links of the pairs, and the inner links that they were trained with."""
    folders = {pair.folder for pair in chosen.values()}
    if config.links.shared_space is not None and len(folders) > 1:
        raise LinksError(
            f"links of {', '.join(sorted(folder.name for folder in folders))}: each has a shared "
            "space of its own, and their ends do not fit together; choose one with --use."
        )
    read = {folder: restore_links(folder)[2] for folder in folders}
    inner: dict[str, dict[str, Tensor]] = {}
    for key, pair in chosen.items():
        source, own = key.split("-")[0], read[pair.folder]
        links.outer[key].load_state_dict(own.between(*pair.edge.split("-")).state_dict())
        state = own.inner[pair.edge.split("-")[0]].state_dict()
        if source in inner and _reads_inner(config) and not _equal(inner[source], state):
            raise LinksError(
                f"agent {source}: the links of {key} and of another edge were trained with "
                "different inner links; train the pairs with the same ones (inner=<folder>)."
            )
        inner.setdefault(source, state)
    for name, link in links.links().items():
        agent = name.removeprefix("inner.")
        if agent in inner:
            link.load_state_dict(inner[agent])
        elif not link.outer:
            link.start_inner()


def _agents(chosen: Mapping[str, Pair]) -> dict[str, dict[str, Any]]:
    """Agent -> what its pairs say of it; all of them the same weights."""
    agents: dict[str, dict[str, Any]] = {}
    for key, pair in chosen.items():
        for name, about in zip(key.split("-"), (pair.source, pair.target), strict=True):
            known = agents.setdefault(name, dict(about))
            for field in ("width", "fingerprint"):
                if known[field] != about[field]:
                    raise LinksError(
                        f"agent {name}: the link of {key} ({pair.name}) was trained with another "
                        f"{field} of {about['model']} than those of its other edges; train the "
                        "pairs with the same weights."
                    )
    return agents


def _reads_inner(config: Config) -> bool:
    return config.links.edge_input == "inner" or config.latent_length > 1


def _equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return all(value.equal(other[key]) for key, value in one.items())
