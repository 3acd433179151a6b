"""The options of a run: processes, the plan, and all options in one."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields

from rmas_train.config.evaluation import (
    AnalysisConfig,
    EvaluationConfig,
    ToolsConfig,
    check_programs,
    check_tools,
)
from rmas_train.config.system import (
    MOST_LENGTH,
    MOST_ROUNDS,
    AgentConfig,
    DataConfig,
    EdgeConfig,
    LinksConfig,
    TopologyConfig,
    check_choice,
    check_least,
    option,
    shown,
)
from rmas_train.config.training import FinetuneConfig, StagesConfig
from rmas_train.errors import ConfigError
from rmas_train.registry import ANALYSES

BACKENDS = ("auto", "single", "ddp", "zero1", "zero2", "zero3")
PLACEMENTS = ("replicate", "per_agent", "sharded")


@dataclass(kw_only=True)
class RuntimeConfig:
    backend: str = option(
        "auto", "auto (as launched) | single | ddp | zero1 | zero2 | zero3; docs/distributed.md"
    )
    placement: str = option(
        "replicate",
        "replicate: all agents in every process's memory | per_agent: an agent per device | "
        "sharded: every agent's layers over all processes (FSDP2)",
    )
    device: str = option("auto", "auto (a GPU where there is one) | cuda: required | cpu")
    processes: int | None = option(None, "refuse to start with another number; null: any")
    threads: int | None = option(None, "CPU threads per process; null: PyTorch's choice")
    timeout_minutes: float = option(30.0, "how long a process waits for the others")

    def __post_init__(self) -> None:
        check_choice("runtime.backend", self.backend, BACKENDS)
        check_choice("runtime.placement", self.placement, PLACEMENTS)
        check_choice("runtime.device", self.device, ("auto", "cuda", "cpu"))
        check_least("runtime.processes", self.processes, 1)
        check_least("runtime.threads", self.threads, 1, 1024)
        check_least("runtime.timeout_minutes", self.timeout_minutes, 0.1)
        if self.backend.startswith("zero") and self.placement != "replicate":
            raise ConfigError(
                f"runtime.placement={self.placement} with runtime.backend={self.backend}: ZeRO "
                "keeps the links of one device per process; use runtime.backend=ddp."
            )


@dataclass(kw_only=True)
class PlanConfig:
    prefix_tokens: int | None = option(None, "longest prompt before its slots; null: from the data")
    suffix_tokens: int | None = option(None, "longest prompt after its slots; null: from the data")
    answer_tokens: int | None = option(None, "longest answer; null: from the data")
    devices: list[int] = option([1, 2, 8], "numbers of devices to plan for")
    device_gib: float = option(80.0, "memory of one device, GiB")
    tflops: float | None = option(None, "10^12 operations per second; null: measured here")
    gib_per_second: float | None = option(None, "memory bandwidth; null: measured here")

    def __post_init__(self) -> None:
        for key in ("prefix_tokens", "suffix_tokens", "answer_tokens"):
            check_least(f"plan.{key}", getattr(self, key), 1, MOST_LENGTH)
        for key in ("device_gib", "tflops", "gib_per_second"):
            check_least(f"plan.{key}", getattr(self, key), 1e-6)
        if not self.devices:
            raise ConfigError("plan.devices=[]: give one or more, as in plan.devices=[1,8].")
        for devices in self.devices:
            check_least("plan.devices", devices, 1)


STAGES = (
    *("pipeline", "inner", "outer", "lora", "sft", "eval", "report", "plan", "pin", "analyse"),
)
AGENT_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


@dataclass(kw_only=True)
class Config:
    name: str = option("relay", "experiment name")
    stage: str = option("pipeline", " | ".join(STAGES))
    rounds: int = option(3, "passes over all agents; training depth, largest depth of eval")
    latent_length: int = option(2, "latent steps per rollout = vectors per message")
    seed: int = option(0, "root of every random number")
    run_dir: str = option("outputs/relay", "run folder; one sub-folder per stage")
    inner: str | None = option(None, "stage=outer, pipeline: folder with trained inner links")
    run: str | None = option(None, "stage=eval, analyse: run folder, or links folder")
    resume: str | None = option(
        None, "auto: go on from the newest valid checkpoint of run_dir; or a checkpoint's folder"
    )
    small: str | None = option(
        None, "agents=small*: folder with qwen_coder, gemma3, smollm2, in place of their hub ids"
    )
    pins: str = option(
        "pins.yaml", "hub commits that stage=pin found; used where no revision is given"
    )
    allow_code_execution: bool = option(
        False,
        "run the Python that the decoder writes (tools.names=[python], some scorers of "
        "reasoning-gym); docs/tools.md",
    )
    analyses: list[str] = option(
        ["messages"],
        "stage=analyse: messages | confidence | health | attribution | text_attribution | depth | "
        "lens | probes; or a plugin's",
    )
    plugins: list[str] = option(
        [],
        "Python modules to import before the config is checked; what they register can be named "
        "in it",
    )
    tracking: list[str] = option([], "any of wandb, tensorboard, trackio; all work offline")
    tracking_group: str | None = option(
        None, "wandb, trackio: group of this run's stages; null: the run folder's, or sweep's, name"
    )
    agents: dict[str, AgentConfig] = option({}, "name -> agent")
    topology: TopologyConfig = field(default_factory=TopologyConfig)
    links: LinksConfig = field(default_factory=LinksConfig)
    data: DataConfig = field(default_factory=DataConfig)
    training: StagesConfig = field(default_factory=StagesConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    analysis: AnalysisConfig = field(default_factory=AnalysisConfig)
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
        if self.stage == "analyse" and not self.analyses:
            raise ConfigError("analyses=[]: name one or more, as in analyses=[messages].")
        for tracker in self.tracking:
            check_choice("tracking", tracker, ("wandb", "tensorboard", "trackio"))
        check_tools(self.tools, self.allow_code_execution)
        self._check_tools_fit()
        self._check_quantised()
        self._check_shared()
        self._check_validation()
        self._check_training_rows()
        if self.stage == "eval":  # before anything is downloaded
            check_programs(self.data.grader, self.allow_code_execution)
        if self.latent_length == 0 and self.stage in ("outer", "pipeline"):
            raise ConfigError(
                "latent_length=0 sends empty messages, so no link can be trained; "
                "set latent_length to 1 or more (0 is for stage=eval)."
            )
        for name in self.agents:
            if not AGENT_NAME.fullmatch(name):
                raise ConfigError(
                    f"agents.{name}: an agent's name has to match {AGENT_NAME.pattern}; rename it."
                )

    def _check_validation(self) -> None:
        if self.training.outer.validate_every and self.data.valid is None:
            raise ConfigError(
                f"training.outer.validate_every={self.training.outer.validate_every} with "
                "data.valid=null: name a file of validation rows in data.folder, as in "
                "data.valid=valid.jsonl."
            )

    def _check_training_rows(self) -> None:
        if self.data.train is None and self.stage in ("inner", "outer", "pipeline"):
            raise ConfigError(
                f"data.train=null with stage={self.stage}: these data are a benchmark without "
                "training rows; name data.train, or evaluate with stage=eval run=<folder>."
            )

    def _check_quantised(self) -> None:
        quantised = [name for name, agent in self.agents.items() if agent.quantization]
        if quantised and self.runtime.placement == "sharded":
            raise ConfigError(
                f"runtime.placement=sharded with agents.{quantised[0]}.quantization="
                f"{self.agents[quantised[0]].quantization}: quantised layers cannot be cut into "
                "shards; use placement=per_agent, or leave one of the two out."
            )

    def _check_shared(self) -> None:
        runtime = self.runtime
        if not self.links.shared and self.links.shared_space is None:
            return
        if runtime.placement == "per_agent" or runtime.backend == "zero3":
            what = "shared=true" if self.links.shared else f"shared_space={self.links.shared_space}"
            raise ConfigError(
                f"links.{what} with runtime.placement={runtime.placement} and "
                f"runtime.backend={runtime.backend}: one link cannot lie on several devices or in "
                "shards; use runtime.placement=replicate and another backend, or leave it out."
            )

    def _check_tools_fit(self) -> None:
        if self.evaluation.retry_tokens and self.evaluation.decoding == "static":
            raise ConfigError(
                f"evaluation.decoding=static with evaluation.retry_tokens="
                f"{self.evaluation.retry_tokens}: the library's loop cannot go on after its end; "
                "use evaluation.decoding=plain."
            )
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
        return list(dict.fromkeys(self.evaluation.rounds or range(1, self.rounds + 1)))


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
