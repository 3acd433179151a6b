"""Which columns the rows need, by config and prompt files alone: told before agents load."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rmas_train.agents.prompts import check_texts, columns_of
from rmas_train.config import Config, DataConfig
from rmas_train.data.rows import Table
from rmas_train.errors import ConfigError, did_you_mean
from rmas_train.topology import Topology

Texts = Mapping[str, Mapping[str, Any]]  # agent -> texts of its prompt file


def incoming_columns(topology: Topology, data: DataConfig, name: str) -> dict[str, str]:
    """Source -> column with the text that it sends to ``name``; others are left out."""
    columns = {}
    for edge in topology.incoming(name):
        texts = data.feedback_texts if edge.next_round else data.role_texts
        if edge.source in texts:
            columns[edge.source] = texts[edge.source]
    return columns


def check_names(config: Config) -> None:
    """Agents and edges that ``data`` names exist.

    Raises:
        ConfigError: one does not; names the option and the nearest name.
    """
    known = [*config.agents, *config.topology.order]
    for key in ("role_texts", "feedback_texts", "inner_files"):
        _check_known(f"data.{key}", getattr(config.data, key), known, "agent")
    edges = [f"{edge.source}-{edge.target}" for edge in config.topology.edges]
    _check_known("data.translations", config.data.translations, edges, "edge")


def _check_known(key: str, named: Iterable[str], known: Iterable[str], what: str) -> None:
    for name in named:
        if name not in known:
            raise ConfigError(f"{key}.{name}: no such {what}. {did_you_mean(name, set(known))}")


def check_role_texts(config: Config, topology: Topology) -> None:
    """Every agent has a role text where training reads one.

    Raises:
        ConfigError: names the agent and the option.
    """
    training, given = config.training, config.data.role_texts
    inner, outer = (config.stage in ("pipeline", s) for s in ("inner", "outer"))
    if inner and training.inner.objective == "cosine":
        for name in topology.agents:
            if name not in given:
                raise ConfigError(
                    f"stage=inner needs a text that {name} should write; set "
                    f"data.role_texts.{name}=<column>."
                )
    if outer and training.outer.latents == "teacher_forced":
        for name in topology.agents:
            if name not in given and name != topology.decoder:
                raise ConfigError(
                    f"training.outer.latents=teacher_forced needs a text of {name}; set "
                    f"data.role_texts.{name}=<column>."
                )


def check_columns(
    config: Config,
    topology: Topology,
    texts: Texts,
    train: Table,
    test: Table,
    inner: Mapping[str, Table],
) -> None:
    """What prompts, answers and stages read is in every row.

    Args:
        config, topology, texts: of the run.
        train, test: rows of the outer stage and of the evaluation.
        inner: agent -> rows of its inner link.

    Raises:
        DataError: names file, line and column.
    """
    for table in (train, test):
        table.require_answers()
    for name, own in texts.items():
        file = f"{config.data.prompts}/{name}.yaml"
        check_texts(name, own, file, topology.sources(name))
        for table in (train, test):
            table.require(columns_of(own), f"named in {file}")
    if config.stage in ("inner", "outer", "pipeline"):
        _check_inner_columns(config, topology, texts, inner)
    if config.stage in ("outer", "pipeline") and (
        config.training.outer.latents == "teacher_forced"
    ):
        senders = [n for n in topology.agents if n != topology.decoder]
        columns = [config.data.role_texts[n] for n in senders if n in config.data.role_texts]
        train.require(columns, "for training.outer.latents=teacher_forced")


def _check_inner_columns(
    config: Config, topology: Topology, texts: Texts, inner: Mapping[str, Table]
) -> None:
    """Columns of the inner stage; all that one file lacks is named at once."""
    for table in {t.path: t for t in inner.values()}.values():
        readers = [n for n in texts if inner[n] is table]
        columns = {config.data.role_texts[n] for n in readers if n in config.data.role_texts}
        for name in readers:
            columns |= set(incoming_columns(topology, config.data, name).values())
            columns |= columns_of(texts[name])
        table.require(
            columns,
            f"for the inner links of {', '.join(readers)}; name other columns with "
            "data.role_texts.<agent>=<column> and data.feedback_texts.<agent>=<column>",
        )
