"""From a config to agents, prompts, data and links; what every stage begins with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from rmas_train.agents.agent import Agent, assert_frozen, decoder_layers
from rmas_train.agents.prompt_files import read_prompt
from rmas_train.agents.prompts import Prompt, make_prompt
from rmas_train.config import Config, first_alike
from rmas_train.data.rows import Table, check_answers, read_table
from rmas_train.engine.kv_cache import is_recurrent
from rmas_train.engine.loading import load_agent
from rmas_train.errors import ConfigError, DataError, did_you_mean
from rmas_train.recipes.prepare import prepare
from rmas_train.recursion import Team
from rmas_train.runs.role_texts import needed_columns
from rmas_train.runtime.runtime import Runtime
from rmas_train.support.resources import find_path
from rmas_train.topology import build_topology


@dataclass
class Loaded:
    """A config's agents and data, loaded and checked.

    Attributes:
        team: the agents of this process; all of them, but in a spread inner stage.
        train, test: rows of the outer stage and of the evaluation.
        inner: agent -> rows of its inner link; the same as ``train`` unless
            ``data.inner_files`` names others.
        agents: every agent's model, revision, dtype, width and fingerprint.
        fingerprints: of what this process holds of each agent of its own.
    """

    config: Config
    team: Team
    train: Table
    test: Table
    inner: dict[str, Table]
    agents: dict[str, dict[str, Any]]
    fingerprints: dict[str, str]

    @property
    def inner_fingerprint(self) -> str:
        """Of all files that inner links train on."""
        found = {table.path: table.fingerprint for table in self.inner.values()}
        return ",".join(found.values())

    def assert_unchanged(self) -> None:
        """The agents' weights are, by hash, what was loaded."""
        assert_frozen(self.team.agents)
        for name, agent in self.team.agents.items():
            assert agent.fingerprint() == self.fingerprints[name], f"agent {name} has changed"


def load_run(config: Config, runtime: Runtime, names: Sequence[str] | None = None) -> Loaded:
    """Load agents, prompts and data, and check that they fit.

    Args:
        config: of the run.
        runtime: says where agents go; its rank 0 runs the data recipe.
        names: the agents of this rank; None: all.
    """
    topology = build_topology(config.topology, config.agents)
    if runtime.is_main:
        prepare(config.data, config.seed)
    runtime.barrier()
    if not config.data.folder:
        raise ConfigError("data.folder is empty; give the folder with your train and test rows.")
    folder = Path(config.data.folder)
    train, test = read_table(folder / config.data.train), read_table(folder / config.data.test)
    inner = inner_tables(config, topology.agents, train)
    check_answers(train, config.data)
    check_answers(test, config.data)
    own = list(topology.agents) if names is None else list(names)
    agents, described = load_agents(config, runtime, own)
    prompts = {
        n: make_prompt(agents[n], texts, f"{config.data.prompts}/{n}.yaml", topology.sources(n))
        for n, texts in prompt_texts(config, own).items()
    }
    for prompt in prompts.values():
        train.require(prompt.columns, f"named in {prompt.file}")
        test.require(prompt.columns, f"named in {prompt.file}")
    team = Team(agents, prompts, topology, config.links.edge_input, runtime.agree)
    for table in {t.path: t for t in inner.values()}.values():  # all that one file lacks, at once
        readers = [n for n in own if inner[n] is table]
        columns = set().union(*(needed_columns(team, config.data, n) for n in readers))
        table.require(
            columns.union(*(prompts[n].columns for n in readers)),
            f"for the inner links of {', '.join(readers)}; name other columns with "
            "data.role_texts.<agent>=<column> and data.feedback_texts.<agent>=<column>",
        )
    fingerprints = {n: described[n]["fingerprint"] for n in own}
    if runtime.placement == "sharded":
        fingerprints = {n: agent.fingerprint() for n, agent in agents.items()}
    described = runtime.gather_dict(described)
    about = {n: described[n] for n in topology.agents}
    loaded = Loaded(config, team, train, test, inner, about, fingerprints)
    if topology.decoder in own:
        check_lengths(loaded)
    for name in own:
        check_prompts(loaded, team.prompts[name])
    return loaded


def load_agents(
    config: Config, runtime: Runtime, names: Sequence[str]
) -> tuple[dict[str, Agent], dict[str, dict[str, Any]]]:
    """Agents where ``runtime.placement`` puts them, and what is to be said about each.

    Agents that play several roles of one model share one copy of its weights.
    """
    agents: dict[str, Agent] = {}
    described: dict[str, dict[str, Any]] = {}
    alike = first_alike(config.agents, names)
    devices = runtime.agent_devices(sorted(set(alike.values()), key=list(names).index))
    is_sharded = runtime.placement == "sharded"
    for name in names:
        if alike[name] != name:
            agents[name] = replace(agents[alike[name]], name=name)
            described[name] = dict(described[alike[name]])
            continue
        # Shards are cut on the CPU: the whole may be larger than a device.
        where = torch.device("cpu") if is_sharded else devices[name]
        agent = load_agent(name, config.agents[name], where)
        described[name] = describe_agent(agent, config)
        if is_sharded:
            runtime.shard(list(decoder_layers(agent.model)))
            agent.model.to(devices[name])
        if runtime.in_step and is_recurrent(agent):
            # It would read rows by length, and lengths differ by rank.
            agent = replace(agent, attends_to_blocks=False)
        agents[name] = agent
    return agents, described


def describe_agent(agent: Agent, config: Config) -> dict[str, Any]:
    """What links say about an agent that they were made for."""
    return {
        "model": agent.source,
        "revision": agent.revision,
        "dtype": config.agents[agent.name].dtype,
        "width": agent.width,
        "fingerprint": agent.fingerprint(),
    }


def inner_tables(config: Config, names: Sequence[str], train: Table) -> dict[str, Table]:
    """Agent -> rows that its inner link trains on; one table per file.

    Raises:
        ConfigError: ``data.inner_files`` names an unknown agent.
    """
    files = config.data.inner_files
    for name in files:
        if name not in names:
            raise ConfigError(f"data.inner_files.{name}: {did_you_mean(name, names)}")
    tables = {file: read_table(Path(config.data.folder) / file) for file in set(files.values())}
    return {n: tables[files[n]] if n in files else train for n in names}


def prompt_texts(config: Config, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The prompt files of these agents, with what ``data.task`` adds."""
    folder, tasks = prompts_folder(config), find_path(config.data.tasks)
    return {n: read_prompt(folder, n, tasks, config.data.task) for n in names}


def prompts_folder(config: Config) -> Path:
    path = find_path(config.data.prompts) if config.data.prompts else None
    if path is None or not path.is_dir():
        raise ConfigError(
            f"data.prompts={config.data.prompts}: no such folder; give one with <agent>.yaml files."
        )
    return path


def check_prompts(loaded: Loaded, prompt: Prompt) -> None:
    """No prompt of an agent is longer than ``data.max_length``; only long texts are tokenised.

    Raises:
        DataError: names the row and the prompt.
    """
    most = loaded.config.data.max_length
    literal = sum(len(p.value.encode()) for p in prompt.user if p.kind == "text")
    for table in (loaded.train, loaded.test):
        sizes = [sum(len(row[c].encode()) for c in prompt.columns) for row in table.rows]
        # A token is a byte or more.
        long = [i for i, size in enumerate(sizes) if literal + size > most]
        encoded = prompt.encode([table.rows[i] for i in long], 1, first=False) if long else []
        for i, one in zip(long, encoded, strict=True):
            if (length := len(one.ids)) > most:
                raise DataError(
                    f"{table.where(i)}: {prompt.file} makes {length} tokens, data.max_length is "
                    f"{most}; shorten the row or the prompt, or raise data.max_length."
                )


def check_lengths(loaded: Loaded) -> None:
    """The decoder's prompt with its slots and the answer fit into ``data.max_length`` tokens.

    Raises:
        DataError: names the row.
    """
    config, team = loaded.config, loaded.team
    decoder = team.agents[team.topology.decoder]
    prompt = team.prompts[decoder.name]
    for table in (loaded.train, loaded.test):
        encoded = prompt.encode(list(table.rows), 1, first=False)
        answers = decoder.tokenizer([r["answer"] for r in table.rows], add_special_tokens=False)
        for i, (one, answer) in enumerate(zip(encoded, answers["input_ids"], strict=True)):
            slots = len(one.slots) * config.latent_length
            total = len(one.ids) + slots + len(answer) + 1
            if total > config.data.max_length:
                raise DataError(
                    f"{table.where(i)}: {prompt.file} ({len(one.ids)}), slots ({slots}) and answer "
                    f"({len(answer) + 1} tokens) make {total} tokens, data.max_length is "
                    f"{config.data.max_length}; shorten the row or raise data.max_length."
                )
