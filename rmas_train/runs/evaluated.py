"""Links that are evaluated, their start, and what an evaluation depends on."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rmas_train.agents.prompt_files import columns_of
from rmas_train.config import Config
from rmas_train.data.rows import read_table
from rmas_train.errors import ConfigError, DataError, LinksError
from rmas_train.links.card import CARD, read_card
from rmas_train.links.folder import check_agents, check_rendered, find_links, load_tensors
from rmas_train.links.link_set import LinkSet
from rmas_train.recursion import Rows
from rmas_train.runs.identity import Identity, as_read, common
from rmas_train.runs.load import Loaded, hash_of, prompt_texts
from rmas_train.runs.starting_links import drawn_links
from rmas_train.runs.stop_rule import read_rule
from rmas_train.runs.tables import Tables
from rmas_train.support.files import find_path


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


def format_links(config: Config) -> Path | None:
    """The links of ``evaluation.format``, where that control is asked for.

    Raises:
        ConfigError: none are named, or they were trained with their own messages.
    """
    if "format" not in config.evaluation.systems:
        return None
    if config.evaluation.format is None:
        raise ConfigError(
            "evaluation.systems=[format] with evaluation.format=null: train links with "
            "training.outer.messages=shuffled in a run folder of their own, and name it there."
        )
    folder = find_links(Path(config.evaluation.format))
    training = read_card(folder).identity.get("training")
    if not isinstance(training, dict) or training.get("messages") != "shuffled":
        raise ConfigError(
            f"evaluation.format={config.evaluation.format}: these links were not trained with "
            "training.outer.messages=shuffled, so they have seen content."
        )
    return folder


def check_controls(config: Config, tables: Tables) -> None:
    """The files that systems need, before anything is trained.

    Raises:
        ConfigError, DataError, LinksError: see ``format_links``, ``read_rule``, ``other_rows``.
    """
    format_links(config)
    if "stop_trained" in config.evaluation.systems:
        read_rule(config.evaluation.stop_rule)
    if "cross_task" not in config.evaluation.systems:
        return
    texts = prompt_texts(config, config.topology.order)
    columns = set().union(*(columns_of(own) for own in texts.values()))
    for table in (tables.test, *tables.more_tests.values()):
        other_rows(config, columns, table.rows)


def other_rows(config: Config, columns: Set[str], asked: Rows) -> Rows:
    """The rows of ``evaluation.cross_task``.

    Args:
        config: of the evaluation.
        columns: that the agents' prompts name.
        asked: rows of the benchmark.

    Raises:
        ConfigError: ``evaluation.cross_task`` names no file.
        DataError: the file lacks a column that the prompts name, or has a row that is asked.
    """
    path = find_path(config.evaluation.cross_task) if config.evaluation.cross_task else None
    if path is None:
        raise ConfigError(
            f"evaluation.systems=[cross_task] with evaluation.cross_task="
            f"{config.evaluation.cross_task}: give a JSONL file with rows of another task, whose "
            "columns are those that the prompts name."
        )
    table, needed = read_table(path), sorted(columns)
    table.require(needed, "named in the prompts, for evaluation.cross_task")
    if not table.rows:
        raise DataError(f"{path}: no rows; evaluation.cross_task needs one or more.")
    shown = {tuple(row[column] for column in needed) for row in asked}
    same = next((i for i, r in enumerate(table.rows) if tuple(r[c] for c in needed) in shown), None)
    if same is not None:
        raise DataError(
            f"{table.where(same)}: shows the agents the same as a test row, so its messages are "
            "no control; give evaluation.cross_task rows of another task."
        )
    return table.rows


def read_all_links(
    loaded: Loaded, folder: Path, learnt_format: Path | None = None
) -> dict[str, LinkSet]:
    """``trained``, ``untrained``, and ``start`` and ``format`` where there are such; all frozen."""
    untrained = drawn_links(loaded)
    links = {"trained": read_links(loaded, folder, untrained), "untrained": untrained}
    for name, link in untrained.links().items():  # the norms that the training data gave
        for end, trained in zip(link.ends(), links["trained"].links()[name].ends(), strict=True):
            end.scale.copy_(trained.scale)
    if start := start_of(folder):
        links["start"] = read_links(loaded, start, untrained)
    if learnt_format is not None:
        links["format"] = read_links(loaded, learnt_format, untrained)
    for link_set in links.values():
        link_set.requires_grad_(False)
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
    if loaded.baseline_prompts:
        own["baseline_prompts"] = loaded.baseline_prompts
    return as_read(common(loaded) | own)
