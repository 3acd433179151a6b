"""Every option: name, type, default, meaning, source. Plain dataclasses that check themselves.

Hydra and OmegaConf stop in ``compose.py``; the rest of the package sees only these classes.
"""

from rmas_train.config.evaluation import EvaluationConfig, ToolsConfig
from rmas_train.config.run import Config, PlanConfig, RuntimeConfig, describe
from rmas_train.config.system import (
    AgentConfig,
    DataConfig,
    EdgeConfig,
    LinksConfig,
    TopologyConfig,
    first_alike,
    shown,
)
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
