"""Every option: name, type, default, meaning, source. Plain dataclasses that check themselves.

Hydra and OmegaConf stop in ``compose.py``; the rest of the package sees only these classes.
"""

from rmas_train.config.agents import (
    AgentConfig,
    EdgeConfig,
    LinksConfig,
    TopologyConfig,
    first_alike,
)
from rmas_train.config.data import DataConfig
from rmas_train.config.evaluation import EvaluationConfig, ToolsConfig
from rmas_train.config.options import shown
from rmas_train.config.run import Config, describe
from rmas_train.config.runtime import PlanConfig, RuntimeConfig
from rmas_train.config.training import InnerConfig, OuterConfig, StagesConfig, TrainingConfig

__all__ = [
    "AgentConfig",
    "Config",
    "DataConfig",
    "EdgeConfig",
    "EvaluationConfig",
    "InnerConfig",
    "LinksConfig",
    "OuterConfig",
    "PlanConfig",
    "RuntimeConfig",
    "StagesConfig",
    "ToolsConfig",
    "TopologyConfig",
    "TrainingConfig",
    "describe",
    "first_alike",
    "shown",
]
