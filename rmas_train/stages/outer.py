"""Stage outer: from inner links and an aligned start to trained outer links."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rmas_train.config import Config, OuterConfig
from rmas_train.data.sampling import Sampler, depth_at
from rmas_train.errors import ConfigError
from rmas_train.links.folder import CARD, load_tensors, save_links
from rmas_train.links.linkset import LinkSet
from rmas_train.objectives.build import Factory, build_objective
from rmas_train.planning.recompute import settle_recompute
from rmas_train.runs.handover import find_inner, inner_only, make_card
from rmas_train.runs.load import Loaded
from rmas_train.runs.starting_links import starting_links
from rmas_train.runtime.runtime import Runtime
from rmas_train.stages.train import run_training
from rmas_train.support.log import say
from rmas_train.training.callbacks import Callback, Step


def run_outer(
    config: Config,
    loaded: Loaded,
    runtime: Runtime,
    callbacks: Sequence[Callback | Callable[[Step], None]] = (),
    factory: Factory | None = None,
) -> LinkSet:
    """Train the outer links through the unrolled system; writes ``run_dir/outer``.

    Args:
        config, loaded, runtime: of the run.
        callbacks: beside those of every run, see ``run_training``.
        factory: of the objective, in place of the one that the config names.
    """
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
    config = settle_recompute(config, runtime.device, runtime.world)
    objective = build_objective(config, loaded, links, factory=factory)
    for edge in loaded.team.topology.edges:
        if runtime.is_main and f"outer.{edge.key}" not in objective.groups():
            say(f"edge {edge.key} gets no gradient at rounds={config.rounds}; its link is frozen.")
    sampler = outer_sampler(config, loaded)
    run_training(config, loaded, runtime, "outer", objective, sampler, callbacks=callbacks)
    if runtime.is_main:
        save_links(folder / "links", links, card)
    runtime.barrier()
    return links


def outer_sampler(config: Config, loaded: Loaded) -> Sampler:
    """Depth and rows of each optimizer step."""
    stage = config.training.outer
    depths = [
        depth_at(s, stage.steps, config.rounds, stage.depth, config.seed)
        for s in range(stage.steps)
    ]
    needed = [loaded.train.rounds_needed(i) for i in range(len(loaded.train))]
    return Sampler(needed, depths, stage.batch_size, config.seed)


def check_layout(config: Config, backend: str, placement: str) -> None:
    """The outer stage's options work with this back end and placement.

    Raises:
        ConfigError: they do not, with what would.
    """
    stage: OuterConfig = config.training.outer
    if placement == "sharded" and stage.prefix_cache_gib:
        raise ConfigError(
            f"training.outer.prefix_cache_gib={stage.prefix_cache_gib} with "
            "runtime.placement=sharded: a prefix found by one rank only would leave the others "
            "waiting; set training.outer.prefix_cache_gib=0."
        )
    if backend == "zero3" and (stage.recompute == "agent" or stage.gradient == "parallel"):
        raise ConfigError(
            "runtime.backend=zero3 takes links apart between their forwards, which "
            f"training.outer.recompute={stage.recompute} and gradient={stage.gradient} cannot "
            "work with; use runtime=zero2, or recompute=none and gradient=full."
        )
