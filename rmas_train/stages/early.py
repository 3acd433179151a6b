"""What cannot work is told before anything is loaded or trained."""

from __future__ import annotations

from rmas_train.config import Config
from rmas_train.errors import ConfigError
from rmas_train.runs.columns import check_names, check_role_texts
from rmas_train.topology import Topology, build_topology
from rmas_train.training.callbacks import check_trackers


def check_options(config: Config, is_main: bool = True) -> None:
    """Options that agree with each other, and with what is installed.

    Raises:
        ConfigError: they do not.
    """
    topology = build_topology(config.topology, config.agents)
    check_names(config)
    check_role_texts(config, topology)
    check_reach(config, topology)
    if is_main and config.stage in ("inner", "outer", "pipeline"):
        check_trackers(config.tracking)


def check_reach(config: Config, topology: Topology) -> None:
    """At every depth of the outer stage a gradient reaches a link from the decoder's answer.

    Raises:
        ConfigError: at the smallest depth it reaches none; names depths that work.
    """
    options = config.training.outer
    if config.stage not in ("outer", "pipeline") or options.objective != "answer":
        return
    least = config.rounds if options.depth == "fixed" else 1
    if _reached(config, topology, least):
        return
    depths = range(least + 1, least + len(topology.agents) + 2)
    works = next((d for d in depths if _reached(config, topology, d)), None)
    remedy = "" if works is None else f"set training.outer.depth=fixed and rounds={works}, or "
    raise ConfigError(
        f"topology.decoder={topology.decoder} with training.outer.depth={options.depth}: at "
        f"rounds={least} no link can be reached by a gradient from its answer, because no message "
        f"arrives before it; {remedy}choose another decoder."
    )


def _reached(config: Config, topology: Topology, rounds: int) -> set[str]:
    """Edges, and with ``train_inner`` agents, that a gradient can reach at this depth."""
    options = config.training.outer
    found = set(topology.live_edges(rounds, options.gradient_rounds))
    if options.train_inner:
        found |= topology.rolling_agents(rounds, options.gradient_rounds)
    return found
