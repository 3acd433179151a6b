"""The two training stages: what is around their loop, and how each begins and ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rmas_train.config import Config, OuterConfig, TrainingConfig
from rmas_train.data.sampling import Sampler, depth_at
from rmas_train.errors import CheckpointError, ConfigError, LinksError, NonFiniteError
from rmas_train.links.card import CARD, LinksCard
from rmas_train.links.folder import find_links, load_tensors, save_links
from rmas_train.links.link_set import LinkSet
from rmas_train.objectives.base import Factory, Objective, build_objective
from rmas_train.planning.shapes import count_parameters
from rmas_train.registry import CALLBACKS
from rmas_train.runs.identity import (
    find_inner,
    inner_identity,
    inner_only,
    make_card,
    outer_identity,
    tensors_hash,
)
from rmas_train.runs.load import Loaded
from rmas_train.runs.session import begin, stage_folder
from rmas_train.runs.starting_links import begun_links, place_links, starting_links, untrained_links
from rmas_train.runtime.runtime import Runtime
from rmas_train.stages.assignment import assign_agents
from rmas_train.stages.validation import Validation, take_best
from rmas_train.support.files import write_json
from rmas_train.support.output import say
from rmas_train.topology import build_topology
from rmas_train.training.callbacks import (
    Callback,
    LinkWatch,
    MetricsFile,
    ProgressBar,
    Step,
)
from rmas_train.training.loop import train
from rmas_train.training.profile import ProfileFile
from rmas_train.training.saver import Saver


def run_training(
    config: Config,
    loaded: Loaded,
    runtime: Runtime,
    stage: str,
    objective: Objective,
    sampler: Sampler,
    card: LinksCard,
    share_of: tuple[int, int] | None = None,
    callbacks: Sequence[Callback | Callable[[Step], None]] = (),
) -> None:
    """The loop with its callbacks and checkpoints; only rank 0 writes.

    Args:
        config, loaded, runtime: of the run.
        stage: ``inner`` or ``outer``.
        objective, sampler, share_of: see ``train``.
        card: of the links that come of it; its identity is that of the checkpoints too.
        callbacks: on every rank, after those that every run has and those that the config names.
    """
    options: TrainingConfig = getattr(config.training, stage)
    folder = Path(config.run_dir) / stage
    if runtime.is_main:
        folder = stage_folder(config, stage, loaded.agents)
    saver = Saver(
        folder / "checkpoints",
        card.identity,
        options,
        runtime,
        resume_of(config, stage),
        asdict(card),
    )
    expected = objective.expected_links
    named = [CALLBACKS.get(name)(config, folder) for name in options.callbacks]
    watch = LinkWatch(lambda rounds: objective.links.trained_parts_of(expected(rounds)))
    everywhere = [watch, *named, *callbacks]
    try:
        with ExitStack() as open_:
            own = main_callbacks(config, stage, options, folder, open_) if runtime.is_main else []
            train(objective, sampler, options, runtime, [*own, *everywhere], saver, share_of)
    except NonFiniteError as error:
        if runtime.is_main:
            dump_step(folder / "nonfinite.json", error, loaded, stage, saver.where())
        raise
    loaded.assert_unchanged()


def own_class(objective: Objective) -> str | None:
    """The class of an objective that came from outside the package; None: it is built in."""
    name = f"{type(objective).__module__}:{type(objective).__qualname__}"
    return None if name.startswith("rmas_train.") else name


def main_callbacks(
    config: Config, stage: str, options: TrainingConfig, folder: Path, open_: ExitStack
) -> list[Callback]:
    """What rank 0 has beside: metrics, progress, trackers; ``open_`` closes them."""
    bar = open_.enter_context(ProgressBar(stage, options.steps))
    metrics = MetricsFile(folder / "metrics.jsonl", options.log_every, options.steps)
    if not config.tracking:
        return [metrics, bar]
    from rmas_train.training.tracking import Place, Tracker

    tracker = Tracker(config.tracking, Place.of(config, stage))
    open_.push(lambda kind, *_: None if kind else tracker.close())
    return [metrics, bar, tracker]


def resume_of(config: Config, stage: str) -> str | None:
    """``resume`` for one stage: a folder belongs to the stage that its path names."""
    if config.resume in (None, "auto") or config.stage == stage:
        return config.resume
    path = Path(str(config.resume))
    return str(path) if path.parent.parent.name == stage else "auto"


def dump_step(
    path: Path, error: NonFiniteError, loaded: Loaded, stage: str, checkpoint: str
) -> None:
    """Facts about a step that was refused."""
    used = loaded.tables.inner.values() if stage == "inner" else [loaded.train]
    tables = {t.path: t for t in used}
    rows = [t.where(i % len(t)) for i in error.facts.get("rows", []) for t in tables.values()]
    write_json(path, error.facts | {"rows": rows, "last_checkpoint": checkpoint})
    say(f"the step's rows and gradient norms are in {path}; last good checkpoint: {checkpoint}")


def begin_stage(config: Config, stage: str, identity: Mapping[str, Any], runtime: Runtime) -> None:
    """Rank 0 sets aside what was there, or finds that it is of this run; all fail together."""
    problem = None
    if runtime.is_main:
        try:
            begin(config, stage, identity, resume_of(config, stage))
        except CheckpointError as error:
            problem = str(error)
    if problem := runtime.broadcast(problem):
        raise CheckpointError(problem)


def run_inner(config: Config, loaded: Loaded, runtime: Runtime) -> None:
    """Train every agent's inner link; writes ``run_dir/inner``."""
    card = make_card(loaded, "inner", {}, inner_identity(loaded))
    begin_stage(config, "inner", card.identity, runtime)
    links = inner_only(untrained_links(loaded, runtime.gather_dict)).to(runtime.device)
    place_links(links, loaded.team, config.links)
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
    run_training(config, loaded, runtime, "inner", objective, sampler, card, share_of)
    if runtime.is_main:
        save_links(Path(config.run_dir) / "inner" / "links", links, card)
    runtime.barrier()


def choose_inner(config: Config, loaded: Loaded, runtime: Runtime) -> Path:
    """Inner links for the outer stage; rank 0 chooses, so that all take the same ones."""
    path = problem = None
    if runtime.is_main:
        try:
            path = find_inner(config, loaded)
        except LinksError as error:
            problem = str(error)
    path, problem = runtime.broadcast((path, problem))
    if path is None:
        raise LinksError(str(problem))
    return path


def inner_share(config: Config, runtime: Runtime) -> tuple[list[str], tuple[int, int]]:
    """Agents and share of the rows of this rank; all agents where ranks work in step."""
    names = build_topology(config.topology, config.agents).agents
    if runtime.in_step:
        return list(names), (runtime.world, runtime.rank)
    costs = {n: float(count_parameters(n, config.agents[n])) for n in names}
    return assign_agents(costs, runtime.world, runtime.rank)


def run_outer(
    config: Config,
    loaded: Loaded,
    runtime: Runtime,
    callbacks: Sequence[Callback | Callable[[Step], None]] = (),
    factory: Factory | None = None,
    inner: Path | None = None,
) -> LinkSet:
    """Train the outer links through the unrolled system; writes ``run_dir/outer``.

    Args:
        config, loaded, runtime: of the run.
        callbacks: beside those of every run, see ``run_training``.
        factory: of the objective, in place of the one that the config names.
        inner: folder of the inner links; None: found as ``find_inner`` does.
    """
    inner = inner or choose_inner(config, loaded, runtime)
    if config.training.outer.answers_of is not None:
        from rmas_train.stages.text_answers import with_text_answers

        loaded = with_text_answers(loaded)
    begun = config.training.outer.from_links
    if begun is None:
        links, alignment = starting_links(loaded)
    else:
        links, alignment = begun_links(loaded, find_links(Path(begun))), {}
    load_tensors(inner, inner_only(links))
    if config.training.outer.recompute == "auto":
        from rmas_train.planning.recompute import settle_recompute

        config = settle_recompute(config, runtime.device, runtime.world)
    objective = build_objective(config, loaded, links, factory=factory)
    identity = outer_identity(loaded, tensors_hash(inner), own_class(objective))
    begin_stage(config, "outer", identity, runtime)
    card = make_card(loaded, "outer", alignment, identity)
    folder = Path(config.run_dir) / "outer"
    if runtime.is_main:
        if not (folder / "start" / CARD).is_file():
            save_links(folder / "start", links, replace(card, stage="start"))
        say(f"inner links: {inner}")
        for key, numbers in alignment.items():
            say(f"aligned start {key}: " + ", ".join(f"{k} {v:.3g}" for k, v in numbers.items()))
    for edge in loaded.team.topology.edges:
        is_frozen = not any(p.requires_grad for p in links.outer[edge.key].parameters())
        if runtime.is_main and is_frozen:
            say(f"edge {edge.key} gets no gradient at rounds={config.rounds}; its link is frozen.")
    validation = None
    if config.training.outer.validate_every:
        validation = Validation(config, loaded, runtime, links, card, folder)
    told: list[Callback | Callable[[Step], None]] = list(callbacks)
    told += [validation] if validation else []
    told += profile_file(config, objective, runtime, folder)
    sampler = outer_sampler(config, loaded)
    run_training(config, loaded, runtime, "outer", objective, sampler, card, callbacks=told)
    if validation and config.training.outer.select == "best":
        runtime.barrier()  # rank 0 has written them
        take_best(validation, links)
    if runtime.is_main:
        save_links(folder / "links", links, card)
    runtime.barrier()
    return links


def profile_file(
    config: Config, objective: Objective, runtime: Runtime, folder: Path
) -> list[ProfileFile]:
    """What writes ``profile.jsonl``; nothing where ZeRO-3 shards the links that it would read."""
    options, profile = config.training.outer, objective.profile
    if not options.profile_every or profile is None or runtime.backend == "zero3":
        return []
    path = folder / "profile.jsonl"
    return [ProfileFile(profile, path, options.profile_every, options.steps, runtime)]


def outer_sampler(config: Config, loaded: Loaded) -> Sampler:
    """Depth and rows of each optimizer step."""
    stage = config.training.outer
    depths = [
        depth_at(s, stage.steps, config.rounds, stage.depth, config.seed)
        for s in range(stage.steps)
    ]
    every = range(len(loaded.train))
    needed = [loaded.train.rounds_needed(i) for i in every]
    most = [loaded.train.rounds_most(i) for i in every]
    return Sampler(needed, depths, stage.batch_size, config.seed, most)


def check_layout(config: Config, backend: str, placement: str) -> None:
    """The outer stage's options work with this back end and placement.

    Raises:
        ConfigError: they do not, with what would.
    """
    stage: OuterConfig = config.training.outer
    if placement == "sharded" and stage.prefix_cache_gib:
        raise ConfigError(
            f"training.outer.prefix_cache_gib={stage.prefix_cache_gib} with "
            "runtime.placement=sharded: if only one rank finds a prefix, the others wait "
            "for ever; set training.outer.prefix_cache_gib=0."
        )
    if backend == "zero3" and stage.validate_every:
        raise ConfigError(
            f"training.outer.validate_every={stage.validate_every} with runtime.backend=zero3, "
            "which shards links between forward passes, so that no validation can read them; use "
            "runtime=zero2, or validate_every=0."
        )
    if backend == "zero3" and (stage.recompute == "agent" or stage.gradient == "parallel"):
        raise ConfigError(
            "runtime.backend=zero3 shards links between forward passes, which "
            f"training.outer.recompute={stage.recompute} and gradient={stage.gradient} does "
            "not support; use runtime=zero2, or recompute=none and gradient=full."
        )
