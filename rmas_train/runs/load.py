"""From a config to agents, prompts, data and links; what every stage begins with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from rmas_train.agents.agent import Agent, assert_frozen, decoder_layers
from rmas_train.agents.prompt_files import columns_of, read_prompt
from rmas_train.agents.prompts import make_prompt
from rmas_train.config import Config, first_alike
from rmas_train.data.rows import Table
from rmas_train.engine.kv_cache import is_recurrent
from rmas_train.engine.loading import load_agent
from rmas_train.engine.prompt_batch import Agree, PrefixStore
from rmas_train.errors import ConfigError
from rmas_train.recursion import Team
from rmas_train.runs.baseline_prompts import NEEDED, check_baseline_prompts, files_needed
from rmas_train.runs.tables import (
    Tables,
    check_columns,
    check_rows,
    check_shared,
    load_tables,
)
from rmas_train.runtime.runtime import Runtime
from rmas_train.support.files import find_path
from rmas_train.support.output import say
from rmas_train.topology import build_topology


@dataclass
class Loaded:
    """A config's agents and data, loaded and checked.

    Attributes:
        team: the agents of this process; all of them, but where ranks share out the inner stage.
        tables: rows by use.
        agents: every agent's model, revision, dtype, width, fingerprint, attention and tokenizer.
        fingerprints: of what this process holds of each agent of its own.
        agree: see ``PrefixStore``.
        rendered: agent -> its prompt as its chat template writes it, of all agents.
        baseline_prompts: prompt file -> texts, of the files that are there and that the systems of
            an evaluation ask for.
    """

    config: Config
    team: Team
    tables: Tables
    agents: dict[str, dict[str, Any]]
    fingerprints: dict[str, str]
    agree: Agree = bool
    rendered: dict[str, dict[str, str]] = field(default_factory=dict)
    baseline_prompts: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def train(self) -> Table:
        return self.tables.train

    @property
    def test(self) -> Table:
        return self.tables.test

    def prefix_store(self, limit: int = 0) -> PrefixStore:
        """A place for frozen prefixes: ``limit`` bytes of them from step to step."""
        return PrefixStore(limit, self.agree)

    def assert_unchanged(self) -> None:
        """The agents' weights are, by hash, what was loaded."""
        assert_frozen(self.team.agents)
        for name, agent in self.team.agents.items():
            assert agent.fingerprint() == self.fingerprints[name], f"agent {name} has changed"


def load_run(
    config: Config,
    runtime: Runtime,
    names: Sequence[str] | None = None,
    tables: Tables | None = None,
) -> Loaded:
    """Load agents and prompts, and check that they fit the rows.

    Args:
        config: of the run.
        runtime: says where agents go.
        names: the agents of this rank; None: all.
        tables: the rows; None: as the config says.
    """
    topology = build_topology(config.topology, config.agents)
    tables = tables or load_tables(config, runtime)
    own = list(topology.agents) if names is None else list(names)
    texts = prompt_texts(config, topology.agents)
    check_columns(config, topology, texts, tables)
    more = {}
    if config.stage in ("pipeline", "eval", "lora", "sft"):
        more = baseline_prompts(config)
        check_baseline_prompts(config, more, tables)
    agents, described = load_agents(config, runtime, own)
    prompts = {
        n: make_prompt(agents[n], texts[n], f"{config.data.prompts}/{n}.yaml", topology.sources(n))
        for n in own
    }
    kinds = config.links.edge_input, config.links.message_update
    team = Team(agents, prompts, topology, *kinds)
    fingerprints = {n: described[n]["fingerprint"] for n in own}
    if runtime.placement == "sharded":
        fingerprints = {n: agent.fingerprint() for n, agent in agents.items()}
    described = runtime.gather_dict(described)
    about = {n: described[n] for n in topology.agents}
    rendered = runtime.gather_dict(rendered_prompts(team))
    rendered = {n: rendered[n] for n in topology.agents}
    loaded = Loaded(config, team, tables, about, fingerprints, runtime.agree, rendered, more)
    check_rows(config, team, tables)
    check_shared(config, shown_columns(prompt_texts(config, topology.agents)), tables)
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
        agent = load_agent(name, config.agents[name].on(devices[name].type), where)
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
    options = config.agents[agent.name]
    about = {
        "model": agent.source,
        "revision": agent.revision,
        "dtype": str(agent.dtype).removeprefix("torch."),
        "width": agent.width,
        "fingerprint": agent.fingerprint(),
        "attention": options.attention,
        "tokenizer": tokenizer_hash(agent),
    }
    if agent.adapter is not None:
        about |= {"adapter": agent.adapter, "adapter_revision": agent.adapter_revision}
    more = {k: getattr(options, k) for k in ("quantization", "template")}
    return about | {k: v for k, v in more.items() if v is not None}


def prompt_texts(config: Config, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The prompt files of these agents, with what ``data.task`` adds."""
    folder, tasks = prompts_folder(config), find_path(config.data.tasks)
    return {n: read_prompt(folder, n, tasks, config.data.task) for n in names}


def baseline_prompts(config: Config) -> dict[str, dict[str, Any]]:
    """The prompt files of baselines that are there; without its file a baseline has no answers."""
    needed = files_needed(config)
    folder = prompts_folder(config) if needed else Path()
    there = [name for name in needed if (folder / f"{name}.yaml").is_file()]
    for name in (name for name in needed if name not in there):
        asked = map(str, config.evaluation.systems)
        systems = ", ".join(system for system in asked if name in NEEDED.get(system, ()))
        say(f"no file {folder / name}.yaml; without it not applicable: {systems}")
    return prompt_texts(config, there)


def shown_columns(prompts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Columns of a row that the prompts of any agent show."""
    return sorted(set().union(*(columns_of(texts) for texts in prompts.values())))


def prompts_folder(config: Config) -> Path:
    path = find_path(config.data.prompts) if config.data.prompts else None
    if path is None or not path.is_dir():
        raise ConfigError(
            f"data.prompts={config.data.prompts}: no such folder; give one with <agent>.yaml files."
        )
    return path


def hash_of(value: Any) -> str:
    """A short hash of plain data, the same in every process."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def rendered_prompts(team: Team) -> dict[str, dict[str, str]]:
    """Agent -> its prompt as its chat template writes it, with a hash.

    A template that came with another version of a model shows here although the prompt files are
    the same.
    """
    return {name: prompt.rendered() for name, prompt in team.prompts.items()}


def tokenizer_hash(agent: Agent) -> str:
    """Hash of how an agent's tokenizer cuts texts; what calls leave behind in it is not counted."""
    backend = getattr(agent.tokenizer, "backend_tokenizer", None)
    if backend is None:
        return hash_of(agent.tokenizer.get_vocab())
    whole = json.loads(backend.to_str())
    return hash_of({k: v for k, v in whole.items() if k not in ("padding", "truncation")})
