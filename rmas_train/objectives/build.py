"""The one place that makes an objective: for training, for the plan, and for Python users."""

from __future__ import annotations

from rmas_train.config import Config
from rmas_train.links.linkset import LinkSet
from rmas_train.objectives.base import Objective
from rmas_train.registry import OBJECTIVES
from rmas_train.runs.load import Loaded


def build_objective(
    config: Config, loaded: Loaded, links: LinkSet, stage: str = "outer"
) -> Objective:
    """The objective that ``training.<stage>.objective`` names, with every option of that stage.

    Args:
        config: of the run.
        loaded: agents and rows, or their shapes alone (``planning.shapes``).
        links: all links of the system; those that are not to be trained are frozen.
        stage: ``inner`` or ``outer``.
    """
    name = getattr(config.training, stage).objective
    objective: Objective = OBJECTIVES.get(name)(config, loaded, links)
    return objective
