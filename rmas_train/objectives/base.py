"""What training minimises, and the one place that makes it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from rmas_train.config import Config
from rmas_train.errors import ConfigError
from rmas_train.links.link_set import LinkSet
from rmas_train.objectives.profile import MessageProfile
from rmas_train.registry import INNER_OBJECTIVES, OBJECTIVES
from rmas_train.runs.load import Loaded


class Objective(nn.Module, ABC):
    """A sum of ``K`` terms over rows; one for the outer stage, one per agent for the inner stage.

    It registers the links as a submodule and nothing of the agents, so that back ends and
    checkpoints see links alone. Losses are sums; the loop divides each term once, by its count over
    all ranks and micro-batches of the optimizer step.

    Args:
        links: all links; those that are to be trained require gradients.

    Attributes:
        step: the optimizer step that runs; the loop sets it before the forward.
        profile: collects gradients by edge and round; None: this objective has none.
    """

    profile: MessageProfile | None

    def __init__(self, links: LinkSet) -> None:
        super().__init__()
        self.links = links
        self.step = 0
        self.profile = None

    @abstractmethod
    def count(self, rows: Sequence[int]) -> Tensor:
        """Valid tokens of each term over these rows, (K,), without running a model."""

    @abstractmethod
    def forward(self, rows: Sequence[int], rounds: int) -> Tensor:
        """Sum of losses over valid tokens of each term, (K,), with a graph."""

    @abstractmethod
    def expected_links(self, rounds: int) -> set[str]:
        """Names of the links that a gradient can reach at this depth; the others may stay still."""

    def groups(self) -> dict[str, nn.Module]:
        """Trainable links by name: the units of clipping and of gradient norms."""
        return dict(self.links.trainable())

    def kept_bytes(self) -> int:
        """Bytes that it holds now from earlier steps, beside the links."""
        return 0

    def kept_limit(self) -> int:
        """The most bytes that it will ever hold from one step to the next."""
        return 0


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
    registry = OBJECTIVES if stage == "outer" else INNER_OBJECTIVES
    named: Factory = registry.get(getattr(config.training, stage).objective)
    objective = (factory or named)(config, loaded, links)
    if not isinstance(objective, Objective):
        raise ConfigError(
            f"the objective of stage {stage} is {objective!r}, not an Objective; give a function "
            "(config, loaded, links) -> Objective, such as MyObjective.from_config."
        )
    return objective
