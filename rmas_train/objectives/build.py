"""The one place that makes an objective: for training, for the plan, and for Python users."""

from __future__ import annotations

from collections.abc import Callable

from rmas_train.config import Config
from rmas_train.links.linkset import LinkSet
from rmas_train.objectives.base import Objective
from rmas_train.registry import OBJECTIVES
from rmas_train.runs.load import Loaded

Factory = Callable[[Config, Loaded, LinkSet], Objective]


def build_objective(
    config: Config,
    loaded: Loaded,
    links: LinkSet,
    stage: str = "outer",
    factory: Factory | None = None,
) -> Objective:
    """The objective that ``training.<stage>.objective`` names, with every option of that stage.

    Args:
        config: of the run.
        loaded: agents and rows, or their shapes alone (``planning.shapes``).
        links: all links of the system; those that are not to be trained are frozen.
        stage: ``inner`` or ``outer``.
        factory: makes it in place of the registered one.
    """
    named: Factory = OBJECTIVES.get(getattr(config.training, stage).objective)
    return (factory or named)(config, loaded, links)
