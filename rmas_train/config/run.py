"""The options of a run: evaluation, tools, processes, the plan, and all in one."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields

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
from rmas_train.registry import ANALYSES, BENCHMARKS, SYSTEMS
from rmas_train.support.output import SECRET_NAME

TOOLS = ("python", "search")
SAFE_URL = re.compile(r"(https://[^\s/@]+|http://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?)(/\S*)?")
MOST_SAMPLES = 10_000  # of a question
SYSTEMS_BESIDE = ("start", "null", "shuffled", "untrained", "decoder_alone", "text")


def check_address(option: str, address: str | None, variable: str, end: str = "") -> None:
    """A key is sent encrypted, and logs leave out its value.

    Raises:
        ConfigError: ``option`` with ``end``, or its ``_key_variable``, is not so.
    """
    if address is not None and not SAFE_URL.fullmatch(address):
        raise ConfigError(
            f"{option}{end}={address}: the key would be sent without encryption; give an address "
            "that begins with https:// (http:// for this machine only)."
        )
    if not SECRET_NAME.match(variable):
        raise ConfigError(
            f"{option}_key_variable={variable}: give the name of a variable that ends in API_KEY "
            "or TOKEN, so that logs leave out its value."
        )


@dataclass(kw_only=True)
class EvaluationConfig:
    rounds: list[int] | None = option(None, "depths to evaluate; null: 1..rounds")
    batch_size: int = option(250, "rows per forward")
    max_new_tokens: int = option(64, "longest answer, and longest message in text recursion")
    decoding: str = option(
        "plain", "plain | static: the library's static cache, whose step is compiled on a GPU"
    )
    temperature: float = option(
        0.0, "0: always the likeliest token; above, tokens are drawn (paper: 0.6; code: 0.2)"
    )
    top_p: float = option(1.0, "draw from the likeliest tokens of this probability (paper: 0.95)")
    top_k: int | None = option(None, "draw from so many of the likeliest tokens; null: from all")
    samples: int = option(
        1, "texts per question, each graded; results have pass@k and the majority's answer"
    )
    price_per_hour: float | None = option(
        None, "of this machine, in any currency; results then have the price of 1000 questions"
    )
    single_rows: int = option(
        0, "so many questions are asked once more one by one, for the time of a single one"
    )
    max_rows: int | None = option(None, "evaluate the first rows only")
    beyond_reach: bool = option(
        True, "evaluate at each depth also the rows that need another one (rounds_needed)"
    )
    benchmarks: list[str] = option(["test"], "test: the data's test rows; or a plugin's")
    format: str | None = option(
        None,
        "systems=[format]: run or links folder that was trained with "
        "training.outer.messages=shuffled",
    )
    cross_task: str | None = option(
        None, "systems=[cross_task]: JSONL file with rows of another task and the prompts' columns"
    )
    judge: str | None = option(
        None, "data.grader=llm: address of the model that judges, as http://localhost:8000/v1"
    )
    judge_model: str | None = option(None, "data.grader=llm: name of the model at that address")
    judge_key_variable: str = option(
        "JUDGE_API_KEY", "data.grader=llm: environment variable that holds the key"
    )
    textgrad_tokens: int = option(
        256, "systems=[textgrad]: longest criticism, and longest new answer with its tags"
    )
    textgrad_url: str | None = option(
        None, "systems=[textgrad]: address of the model that criticises; null: the agent itself"
    )
    textgrad_model: str | None = option(None, "name of the model at evaluation.textgrad_url")
    textgrad_key_variable: str = option(
        "TEXTGRAD_API_KEY", "evaluation.textgrad_url: environment variable that holds the key"
    )
    systems: list[str | None] = option(
        list(SYSTEMS_BESIDE), "evaluated beside the trained system; single: each agent, given all"
    )

    def __post_init__(self) -> None:
        for key in ("batch_size", "max_rows"):
            check_least(f"evaluation.{key}", getattr(self, key), 1)
        check_least("evaluation.max_new_tokens", self.max_new_tokens, 1, MOST_LENGTH)
        check_choice("evaluation.decoding", self.decoding, ("plain", "static"))
        for depth in self.rounds or []:
            check_least("evaluation.rounds", depth, 1, MOST_ROUNDS)
        self._check_sampling()
        # YAML reads a bare `null` as nothing; here it is a system's name.
        self.systems = [name or "null" for name in self.systems]
        for name in self.systems:
            SYSTEMS.check(str(name))
        for name in self.benchmarks:
            BENCHMARKS.check(name)
        check_address("evaluation.judge", self.judge, self.judge_key_variable)
        check_address(
            "evaluation.textgrad", self.textgrad_url, self.textgrad_key_variable, end="_url"
        )
        check_least("evaluation.textgrad_tokens", self.textgrad_tokens, 1, MOST_LENGTH)
        if not self.benchmarks:
            raise ConfigError("evaluation.benchmarks=[]: name one or more; `test` is the data's.")

    def _check_sampling(self) -> None:
        check_least("evaluation.temperature", self.temperature, 0, 100)
        check_least("evaluation.samples", self.samples, 1, MOST_SAMPLES)
        check_least("evaluation.price_per_hour", self.price_per_hour, 0)
        check_least("evaluation.single_rows", self.single_rows, 0)
        check_least("evaluation.top_k", self.top_k, 1)
        if not 0 < self.top_p <= 1:
            raise ConfigError(
                f"evaluation.top_p={self.top_p}: give a number above 0, and at most 1."
            )
        if self.temperature and self.decoding == "static":
            raise ConfigError(
                f"evaluation.temperature={self.temperature} with evaluation.decoding=static: the "
                "library's loop draws no numbers of a row's own; use evaluation.decoding=plain."
            )
        if self.samples > 1 and not self.temperature:
            raise ConfigError(
                f"evaluation.samples={self.samples} with evaluation.temperature=0: all texts of a "
                "question would be equal; set a temperature, as evaluation.temperature=0.6."
            )


@dataclass(kw_only=True)
class ToolsConfig:
    """What the decoder may call while it writes its final text; docs/tools.md."""

    names: list[str] = option([], "any of python, search; python needs allow_code_execution=true")
    max_calls: int = option(5, "calls per answer; the next one is refused (release: 5)")
    output_chars: int = option(
        6000, "longest result that the decoder reads, characters (release: 6000)"
    )
    python_seconds: float = option(10.0, "seconds that a program may run (release: 10)")
    python_packages: bool = option(False, "programs may import installed packages")
    memory_mib: int = option(512, "MiB of memory that a program and its processes may use")
    processes: int = option(16, "processes and threads that a program may have")
    file_mib: int = option(64, "MiB that a program may write to its temporary folder")
    search_index: str | None = option(None, "JSONL file with title and text, searched by BM25")
    search_url: str | None = option(None, "web service instead, as https://api.tavily.com/search")
    search_key_variable: str = option(
        "TAVILY_API_KEY", "environment variable that holds the web service's key"
    )
    search_seconds: float = option(10.0, "seconds that the web service may take")
    search_hits: int = option(4, "passages per search (release: 4)")
    search_chars: int = option(320, "characters of each passage (release: 320)")

    def __post_init__(self) -> None:
        for name in self.names:
            check_choice("tools.names", name, TOOLS)
        for key in ("max_calls", "output_chars", "search_hits", "search_chars"):
            check_least(f"tools.{key}", getattr(self, key), 1, MOST_LENGTH)
        for key in ("python_seconds", "search_seconds"):
            check_least(f"tools.{key}", getattr(self, key), 0.1, 3600)
        check_least("tools.memory_mib", self.memory_mib, 64)
        check_least("tools.processes", self.processes, 2, 4096)
        check_least("tools.file_mib", self.file_mib, 1)
        check_address("tools.search", self.search_url, self.search_key_variable, "_url")
        if "search" in self.names and (self.search_index is None) == (self.search_url is None):
            raise ConfigError(
                f"tools.names=[search] with tools.search_index={self.search_index} and "
                f"tools.search_url={self.search_url}: give one of the two."
            )


def check_tools(tools: ToolsConfig, allow_code_execution: bool) -> None:
    """Refuse to run programs unless the user allowed it.

    Raises:
        ConfigError: says what the option does.
    """
    if "python" in tools.names and not allow_code_execution:
        raise ConfigError(
            "tools.names=[python] runs programs that a model writes, on this machine, in a sandbox "
            "whose limits docs/tools.md states; if you want that, add allow_code_execution=true."
        )


def check_programs(grader: str, allow_code_execution: bool) -> None:
    """Refuse to grade programs by running them unless the user allowed it.

    Raises:
        ConfigError: says what the option does.
    """
    if grader == "code" and not allow_code_execution:
        raise ConfigError(
            "data.grader=code runs programs that the decoder writes, on this machine, in a sandbox "
            "whose limits docs/tools.md states; if you want that, add allow_code_execution=true."
        )


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
        ["messages"], "stage=analyse: messages | confidence; or a plugin's"
    )
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
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
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
            check_choice("tracking", tracker, ("wandb", "tensorboard"))
        check_tools(self.tools, self.allow_code_execution)
        self._check_tools_fit()
        self._check_quantised()
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
