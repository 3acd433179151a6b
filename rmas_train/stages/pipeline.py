"""The stages in order: each reads the config and its predecessor's files, and writes its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rmas_train.compose import to_dict
from rmas_train.config import Config, OuterConfig
from rmas_train.data.sampling import Sampler, depth_at
from rmas_train.errors import ConfigError
from rmas_train.links.folder import CARD, load_tensors, save_links
from rmas_train.objectives.inner import InnerObjective
from rmas_train.objectives.outer import OuterObjective, backward_of
from rmas_train.planning.planning import run_plan, settle_recompute
from rmas_train.planning.shapes import count_parameters
from rmas_train.release.pin import run_pin
from rmas_train.runs.handover import (
    equal_inner,
    find_inner,
    inner_only,
    inner_options_hash,
    make_card,
)
from rmas_train.runs.load import Loaded, load_run
from rmas_train.runs.starting_links import place_links, starting_links, untrained_links
from rmas_train.runtime.runtime import Runtime
from rmas_train.stages.assignment import assign_agents
from rmas_train.stages.run_eval import run_eval
from rmas_train.stages.run_training import check_layout, run_training
from rmas_train.support.log import say
from rmas_train.support.reading import parse_json
from rmas_train.tools.toolbox import describe_tools, make_toolbox
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
    objective = InnerObjective(
        replace(loaded.team, agents=own),
        links,
        loaded.inner,
        config.data,
        config.training.inner.inner_states,
        config.latent_length,
    )
    depths = [1] * config.training.inner.steps
    rows: list[int | None] = [None] * max(map(len, loaded.inner.values()))
    sampler = Sampler(rows, depths, config.training.inner.batch_size, config.seed)
    stage = config.training.inner
    run_training(config, loaded, runtime, "inner", stage, objective, sampler, share_of)
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


def run_outer(config: Config, loaded: Loaded, runtime: Runtime) -> None:
    """Train the outer links through the unrolled system; writes ``run_dir/outer``."""
    inner = find_inner(config, loaded)
    links, alignment = starting_links(loaded)
    load_tensors(inner, inner_only(links))
    card = make_card(loaded, "outer", alignment)
    folder = Path(config.run_dir) / "outer"
    if runtime.is_main:
        if not (config.resume and (folder / "start" / CARD).is_file()):
            save_links(folder / "start", links, make_card(loaded, "start", alignment))
        say(f"inner links: {inner}")
        for key, numbers in alignment.items():
            say(f"aligned start {key}: " + ", ".join(f"{k} {v:.3g}" for k, v in numbers.items()))
    stage = config.training.outer
    stage = replace(stage, recompute=settle_recompute(config, runtime.device, runtime.world))
    check_layout(stage, runtime)
    objective = OuterObjective(
        loaded.team,
        links,
        loaded.train,
        config.rounds,
        config.latent_length,
        train_inner=stage.train_inner,
        clip_message=stage.clip_message,
        backward=backward_of(stage),
        prefix_cache=int(stage.prefix_cache_gib * 2**30),
        role_texts=taught_texts(loaded, stage),
    )
    for edge in loaded.team.topology.edges:
        if runtime.is_main and f"outer.{edge.key}" not in objective.groups():
            say(f"edge {edge.key} gets no gradient at rounds={config.rounds}; its link is frozen.")
    depths = [
        depth_at(s, stage.steps, config.rounds, stage.depth, config.seed)
        for s in range(stage.steps)
    ]
    needed = [loaded.train.rounds_needed(i) for i in range(len(loaded.train))]
    sampler = Sampler(needed, depths, stage.batch_size, config.seed)
    run_training(config, loaded, runtime, "outer", stage, objective, sampler)
    if runtime.is_main:
        save_links(folder / "links", links, card)
    runtime.barrier()


def taught_texts(loaded: Loaded, stage: OuterConfig) -> dict[str, str]:
    """``latents: teacher_forced``: agent -> column of the text whose states it sends."""
    if stage.latents == "rollout":
        return {}
    decoder, data = loaded.team.topology.decoder, loaded.config.data
    columns = {}
    for name in loaded.team.agents:
        if name != decoder:
            if name not in data.role_texts:
                raise ConfigError(
                    f"training.outer.latents=teacher_forced needs a text of {name}; set "
                    f"data.role_texts.{name}=<column>."
                )
            columns[name] = data.role_texts[name]
    loaded.train.require(columns.values(), "for training.outer.latents=teacher_forced")
    return columns | ({decoder: "answer"} if stage.feedback == "gold_answer" else {})


def run(config: Config, runtime: Runtime) -> None:
    """Run ``config.stage``; ``pipeline`` is inner (unless equal links exist), outer and eval."""
    stage = config.stage
    if stage == "plan":
        if runtime.is_main:
            run_plan(config, runtime.device)
        return
    if stage == "pin":
        if runtime.is_main:
            run_pin(config)
        return
    if config.resume == "auto" and runtime.broadcast(is_finished(config)):
        say(f"{config.run_dir} is finished; nothing is left to do.")
        return
    names = inner_share(config, runtime)[0] if stage == "inner" else None
    tools = None
    if stage in ("eval", "pipeline"):  # what is missing is told before anything is trained
        tools = make_toolbox(config.tools, config.allow_code_execution)
        if tools is not None and runtime.is_main:
            say(describe_tools(tools))
    loaded = load_run(config, runtime, names)
    if stage in ("inner", "pipeline"):
        twin = runtime.broadcast(equal_inner(config, loaded)) if stage == "pipeline" else None
        if twin is None:
            run_inner(config, loaded, runtime)
        elif runtime.is_main:
            say(f"inner links from the very same options exist: {twin}")
    if stage in ("outer", "pipeline"):
        run_outer(config, loaded, runtime)
    if stage in ("eval", "pipeline"):
        run_eval(config, loaded, runtime, tools)


def is_finished(config: Config) -> bool:
    """This very pipeline has been evaluated, with the links that are there."""
    run_dir = Path(config.run_dir)
    results, links = run_dir / "eval" / "results.json", run_dir / "outer" / "links" / CARD
    try:
        made = dict(parse_json(results.read_text(encoding="utf-8"))["config"])
        is_newer = results.stat().st_mtime >= links.stat().st_mtime
    except (OSError, ValueError, KeyError, TypeError):
        return False
    wanted = to_dict(config)
    free = ("resume", "runtime", "tracking")
    same = all(made.get(k) == v for k, v in wanted.items() if k not in free)
    return config.stage == "pipeline" and is_newer and same
