"""The options of a run, all in one."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields

from rmas_train.config.agents import AgentConfig, EdgeConfig, LinksConfig, TopologyConfig
from rmas_train.config.data import DataConfig
from rmas_train.config.evaluation import EvaluationConfig, ToolsConfig, check_tools
from rmas_train.config.options import (
    MOST_LENGTH,
    MOST_ROUNDS,
    check_choice,
    check_least,
    option,
    shown,
)
from rmas_train.config.runtime import PlanConfig, RuntimeConfig
from rmas_train.config.training import StagesConfig
from rmas_train.errors import ConfigError
from rmas_train.registry import ANALYSES

STAGES = ("pipeline", "inner", "outer", "eval", "report", "plan", "pin", "analyse")
AGENT_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


@dataclass(kw_only=True)
class Config:
    name: str = option("relay", "experiment name")
    stage: str = option("pipeline", " | ".join(STAGES))
    rounds: int = option(3, "passes over all agents; training depth, largest depth of eval")
    latent_length: int = option(2, "latent steps per rollout = vectors per message")
    seed: int = option(0, "root of every random number")
    run_dir: str = option("outputs/relay", "run folder; one sub-folder per stage")
    inner: str | None = option(None, "stage=outer: links folder with trained inner links")
    run: str | None = option(None, "stage=eval: run folder, or links folder, to evaluate")
    resume: str | None = option(
        None, "auto: go on from the newest valid checkpoint of run_dir; or a checkpoint's folder"
    )
    pins: str = option(
        "pins.yaml", "hub commits that stage=pin found; used where no revision is given"
    )
    allow_code_execution: bool = option(
        False, "run the Python that the decoder writes (tools.names=[python]); docs/tools.md"
    )
    analyses: list[str] = option(["messages"], "stage=analyse: messages; or a plugin's")
    plugins: list[str] = option(
        [],
        "Python modules to import before the config is checked; what they register can be named "
        "in it",
    )
    tracking: list[str] = option([], "any of wandb, tensorboard; both work offline")
    agents: dict[str, AgentConfig] = option({}, "name -> agent")
    topology: TopologyConfig = field(default_factory=TopologyConfig)
    links: LinksConfig = field(default_factory=LinksConfig)
    data: DataConfig = field(default_factory=DataConfig)
    training: StagesConfig = field(default_factory=StagesConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    tools: ToolsConfig = field(default_factory=ToolsConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    plan: PlanConfig = field(default_factory=PlanConfig)

    def __post_init__(self) -> None:
        check_choice("stage", self.stage, STAGES)
        check_least("rounds", self.rounds, 1, MOST_ROUNDS)
        check_least("latent_length", self.latent_length, 0, MOST_LENGTH)
        check_least("seed", self.seed, 0, 2**63 - 1)
        for name in self.analyses:
            ANALYSES.check(name)
        for tracker in self.tracking:
            check_choice("tracking", tracker, ("wandb", "tensorboard"))
        check_tools(self.tools, self.allow_code_execution)
        self._check_tools_fit()
        if self.latent_length == 0 and self.stage in ("outer", "pipeline"):
            raise ConfigError(
                "latent_length=0 sends empty messages, which nothing can be trained through; "
                "set latent_length to 1 or more (0 is for stage=eval)."
            )
        for name in self.agents:
            if not AGENT_NAME.fullmatch(name):
                raise ConfigError(
                    f"agents.{name}: an agent's name has to match {AGENT_NAME.pattern}; rename it."
                )

    def _check_tools_fit(self) -> None:
        if not self.tools.names:
            return
        if self.evaluation.decoding == "static":
            raise ConfigError(
                f"evaluation.decoding=static with tools.names={self.tools.names}: the library's "
                "loop cannot stop at a call; use evaluation.decoding=plain."
            )
        if self.runtime.placement == "sharded":
            raise ConfigError(
                f"runtime.placement=sharded with tools.names={self.tools.names}: every process "
                "would run each call, and their results may differ; use placement=per_agent."
            )

    @property
    def eval_rounds(self) -> list[int]:
        return self.evaluation.rounds or list(range(1, self.rounds + 1))


def describe(config_class: type, prefix: str = "") -> list[tuple[str, str, str]]:
    """(key, default, meaning) of every option below ``config_class``."""
    rows = []
    for f in fields(config_class):
        default = f.default_factory() if callable(f.default_factory) else f.default
        if hasattr(default, "__dataclass_fields__"):
            rows += describe(type(default), f"{prefix}{f.name}.")
        else:
            rows.append((prefix + f.name, shown(default), f.metadata.get("doc", "")))
    if config_class is Config:
        rows += describe(AgentConfig, "agents.<name>.") + describe(EdgeConfig, "topology.edges[i].")
    return rows
