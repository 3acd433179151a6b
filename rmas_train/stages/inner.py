"""Stage inner: every agent's inner link, agents shared out over ranks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rmas_train.config import Config
from rmas_train.data.sampling import Sampler
from rmas_train.links.folder import save_links
from rmas_train.objectives.build import build_objective
from rmas_train.planning.shapes import count_parameters
from rmas_train.runs.handover import inner_only, inner_options_hash, make_card
from rmas_train.runs.load import Loaded
from rmas_train.runs.starting_links import place_links, untrained_links
from rmas_train.runtime.runtime import Runtime
from rmas_train.stages.assignment import assign_agents
from rmas_train.stages.train import run_training
from rmas_train.support.log import say
from rmas_train.topology import build_topology


def run_inner(config: Config, loaded: Loaded, runtime: Runtime) -> None:
    """Train every agent's inner link; writes ``run_dir/inner``."""
    links = inner_only(untrained_links(loaded, runtime.gather_dict)).to(runtime.device)
    place_links(links, loaded.team)
    names, share_of = inner_share(config, runtime)
    own = {n: a for n, a in loaded.team.agents.items() if n in names}
    if runtime.world > 1:
        who = runtime.gather([f"rank {runtime.rank}: {', '.join(own)}"])
        say(f"inner links over ranks: {'; '.join(who)}")
    mine = replace(loaded, team=replace(loaded.team, agents=own))
    objective = build_objective(config, mine, links, "inner")
    options = config.training.inner
    rows: list[int | None] = [None] * max(map(len, loaded.tables.inner.values()))
    sampler = Sampler(rows, [1] * options.steps, options.batch_size, config.seed)
    run_training(config, loaded, runtime, "inner", objective, sampler, share_of)
    if runtime.is_main:
        card = make_card(loaded, "inner", {}, inner_options_hash(loaded))
        save_links(Path(config.run_dir) / "inner" / "links", links, card)
    runtime.barrier()


def inner_share(config: Config, runtime: Runtime) -> tuple[list[str], tuple[int, int]]:
    """Agents and share of the rows of this rank; all agents where ranks work in step."""
    names = build_topology(config.topology, config.agents).agents
    if runtime.in_step:
        return list(names), (runtime.world, runtime.rank)
    costs = {n: float(count_parameters(n, config.agents[n])) for n in names}
    return assign_agents(costs, runtime.world, runtime.rank)
