"""Every option: name, type, default, meaning, source. Plain dataclasses that check themselves.

Hydra and OmegaConf stop in ``compose.py``; the rest of the package sees only these classes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from reprlib import repr as short
from typing import Any

from rmas_train.errors import ConfigError, did_you_mean
from rmas_train.redact import SECRET_NAME

STAGES = ("pipeline", "inner", "outer", "eval", "report", "plan", "pin")
VARIANTS = ("ln_res_2layer", "linear", "linear_res", "2layer", "res_2layer")
GRADIENTS = ("full", "window", "first_step", "parallel")
BACKENDS = ("auto", "single", "ddp", "zero1", "zero2", "zero3")
PLACEMENTS = ("replicate", "per_agent", "sharded")
AGENT_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
MOST_ROUNDS, MOST_LENGTH, MOST_STEPS, MOST_ROWS = 10_000, 1_000_000, 10_000_000, 1_000_000
TOOLS = ("python", "search")
SAFE_URL = re.compile(r"(https://[^\s/@]+|http://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?)(/\S*)?")
CONTROLS = ("start", "null", "shuffled", "untrained", "decoder_alone", "text")


def option(default: Any, doc: str) -> Any:
    """A dataclass field with its explanation, which ``--help`` prints."""
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata={"doc": doc})
    return field(default=default, metadata={"doc": doc})


def check_choice(key: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"{key}={value}: no such choice. {did_you_mean(str(value), known)}")


def check_least(key: str, value: float | None, least: float, most: float = 1e9) -> None:
    """In range; what is larger than ``most`` could only end in a full memory or never."""
    if value is not None and not value >= least:
        raise ConfigError(f"{key}={value} is too small; set {key} to {least} or more.")
    if value is not None and not value <= most:
        raise ConfigError(f"{key}={short(value)} is too large; set {key} to {most:.0f} or less.")


@dataclass(kw_only=True)
class AgentConfig:
    model: str = option("", "folder (Hugging Face format), or hub id")
    revision: str | None = option(None, "hub commit; pin it for results that you publish")
    dtype: str = option("float32", "float32 | bfloat16 | float64; the links stay float32")
    trust_remote_code: bool = option(False, "run Python that comes with the model")
    attention: str = option("sdpa", "sdpa | eager: attention implementation")

    def __post_init__(self) -> None:
        check_choice("agents.<name>.dtype", self.dtype, ("float32", "bfloat16", "float64"))
        check_choice("agents.<name>.attention", self.attention, ("sdpa", "eager"))


def first_alike(agents: Mapping[str, AgentConfig], names: Iterable[str]) -> dict[str, str]:
    """Agent -> first agent with the same model, loaded in the same way: they share its weights."""
    chosen = list(names)
    return {n: next(m for m in chosen if agents[m] == agents[n]) for n in chosen}


@dataclass(kw_only=True)
class EdgeConfig:
    source: str = option("", "agent that sends")
    target: str = option("", "agent that receives, in a slot named after the source")
    next_round: bool = option(False, "the message arrives in the next round (feedback)")


@dataclass(kw_only=True)
class TopologyConfig:
    name: str = option("sequential", "name in files and tables")
    order: list[str] = option([], "agents in the order of a round")
    edges: list[EdgeConfig] = option([], "who sends to whom")
    decoder: str = option("", "agent that answers in text after the last round")


@dataclass(kw_only=True)
class LinksConfig:
    variant: str = option("ln_res_2layer", f"{' | '.join(VARIANTS)} (release: ln_res_2layer)")
    norm: str = option("match_embedding", "match_embedding | layernorm (release) | none")
    edge_input: str = option("inner", "inner: outer(inner(h)), release | hidden: outer(h), paper")
    init: str = option("aligned", "aligned (closed form) | default (PyTorch's, as the release)")
    ridge: float = option(1e-2, "aligned start: ridge weight over the mean squared singular value")
    start_noise: float = option(
        0.0, "aligned start: Gaussian noise on W3, in standard deviations of its entries"
    )

    def __post_init__(self) -> None:
        check_choice("links.variant", self.variant, VARIANTS)
        check_choice("links.norm", self.norm, ("match_embedding", "layernorm", "none"))
        check_choice("links.edge_input", self.edge_input, ("inner", "hidden"))
        check_choice("links.init", self.init, ("aligned", "default"))
        check_least("links.ridge", self.ridge, 0)
        check_least("links.start_noise", self.start_noise, 0)
        if self.norm == "layernorm" and self.variant != "ln_res_2layer":
            raise ConfigError(
                f"links.norm=layernorm needs the closing LayerNorm of ln_res_2layer, but "
                f"links.variant={self.variant}; use links.norm=match_embedding or none."
            )
        if self.init == "aligned" and self.variant == "2layer":
            raise ConfigError(
                "links.variant=2layer has no residual path that an aligned start could fill; "
                "use links.variant=res_2layer or links.init=default."
            )


@dataclass(kw_only=True)
class DataConfig:
    name: str = option("", "task name in results")
    hub: dict[str, str | None] = option(
        {}, "hub id of each data set that the recipe reads -> its commit; null: not pinned"
    )
    recipe: str | None = option(None, "folder of data_recipes/ whose build.py makes the files")
    recipe_options: dict[str, Any] = option({}, "passed to build.py as --key value")
    folder: str = option("", "where the files are, or where the recipe writes them")
    train: str = option("train.jsonl", "training rows, in folder")
    test: str = option("test.jsonl", "test rows, in folder; never trained on")
    prompts: str = option("", "folder with one <agent>.yaml per agent")
    task: str | None = option(
        None, "prompts that name <<task:...>>: a file of data.tasks, math | choice | code | qa"
    )
    tasks: str = option("prompts/tasks", "folder with one <task>.yaml per task")
    role_texts: dict[str, str] = option({}, "agent -> column with the text it should write")
    inner_files: dict[str, str] = option(
        {}, "agent -> file in folder that its inner link trains on; others: train (mixture)"
    )
    feedback_texts: dict[str, str] = option(
        {}, "agent -> column with the text it sent in the round before; empty text: first round"
    )
    translations: dict[str, dict[str, str]] = option(
        {}, "text recursion: source-target -> word for word dictionary"
    )
    answer_pattern: str = option(
        r"^\s*(?P<answer>.+?)\s*$", "regular expression whose group `answer` is compared exactly"
    )
    max_length: int = option(4096, "tokens: longest prompt with its slots and answer")

    def __post_init__(self) -> None:
        check_least("data.max_length", self.max_length, 1)
        try:
            pattern = re.compile(self.answer_pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise ConfigError(
                f"data.answer_pattern={self.answer_pattern}: {error}; mend the expression."
            ) from error
        if "answer" not in pattern.groupindex:
            raise ConfigError(
                f"data.answer_pattern={self.answer_pattern} has no group named `answer`; "
                "write (?P<answer>...) around what is to be compared."
            )


@dataclass(kw_only=True)
class TrainingConfig:
    """What both stages share. Release: AdamW, betas 0.9, 0.95, weight decay 0, 10 warm-up steps."""

    steps: int = option(1000, "optimizer steps")
    batch_size: int = option(64, "rows per optimizer step, over all ranks and micro-batches")
    micro_batch_size: int | None = option(None, "rows per forward and rank; null: all of a rank's")
    lr: float = option(5e-4, "peak learning rate")
    warmup_steps: int = option(10, "linear warm-up, then cosine to 0")
    weight_decay: float = option(0.0, "AdamW weight decay")
    betas: list[float] = option([0.9, 0.95], "AdamW betas")
    eps: float = option(
        1e-8, "AdamW epsilon; near the converged gradient's entries it stops Adam's random walk"
    )
    clip_norm: float = option(1.0, "largest gradient norm; 0 turns clipping off")
    clip_scope: str = option("link", "link: each link by itself | global: all as one vector")
    log_every: int = option(10, "steps between lines of metrics.jsonl")
    save_every: int = option(200, "steps between checkpoints; also after the last step")
    save_minutes: float = option(10.0, "minutes after which a checkpoint is due earlier")
    keep: int = option(2, "newest checkpoints that stay")

    def __post_init__(self) -> None:
        for key in ("micro_batch_size", "log_every", "save_every", "keep"):
            check_least(f"training.<stage>.{key}", getattr(self, key), 1)
        check_least("training.<stage>.steps", self.steps, 1, MOST_STEPS)
        check_least("training.<stage>.batch_size", self.batch_size, 1, MOST_ROWS)
        for key in ("lr", "warmup_steps", "weight_decay", "eps", "clip_norm", "save_minutes"):
            check_least(f"training.<stage>.{key}", getattr(self, key), 0)
        check_choice("training.<stage>.clip_scope", self.clip_scope, ("link", "global"))
        if len(self.betas) != 2 or not all(0 <= b < 1 for b in self.betas):
            raise ConfigError(f"training.<stage>.betas={self.betas}; give two numbers in [0, 1).")


@dataclass(kw_only=True)
class InnerConfig(TrainingConfig):
    inner_states: str = option(
        "teacher_forced", "teacher_forced (release) | rollout (the paper's formula, literally)"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        known = ("teacher_forced", "rollout")
        check_choice("training.inner.inner_states", self.inner_states, known)


@dataclass(kw_only=True)
class OuterConfig(TrainingConfig):
    depth: str = option(
        "uniform", "rounds per step: uniform in 1..rounds | growing (1..d, d grows) | fixed"
    )
    train_inner: bool = option(False, "train the inner links too")
    checkpoint: str = option(
        "none", "none | agent: run each call again in backward, flat memory over rounds | auto"
    )
    latents: str = option(
        "rollout", "rollout | teacher_forced: send states of data.role_texts instead (release)"
    )
    feedback: str = option(
        "rollout",
        "decoder if teacher_forced: rollout | gold_answer (release; a leak)",
    )
    gradient: str = option(
        "full",
        "through a rollout: full | window | first_step | parallel; docs/gradients.md",
    )
    gradient_steps: int | None = option(
        None, "latent steps per window, or sweeps of parallel; parallel is exact at latent_length"
    )
    gradient_rounds: int | None = option(
        None, "gradient goes back through this many of the last rounds only; null: all"
    )
    prefix_cache_gib: float = option(
        0.0, "GiB of frozen prefixes kept over steps and epochs, per process; 0: none"
    )
    clip_message: float = option(
        0.0, "largest gradient norm of a row's loss at each of its messages; 0: exact gradient"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("training.outer.checkpoint", self.checkpoint, ("none", "agent", "auto"))
        check_choice("training.outer.latents", self.latents, ("rollout", "teacher_forced"))
        check_choice("training.outer.feedback", self.feedback, ("rollout", "gold_answer"))
        if self.latents == "rollout" and self.feedback != "rollout":
            raise ConfigError(
                f"training.outer.feedback={self.feedback} belongs to "
                "training.outer.latents=teacher_forced; set both, or neither."
            )
        check_choice("training.outer.gradient", self.gradient, GRADIENTS)
        if self.latents == "teacher_forced" and self.gradient != "full":
            raise ConfigError(
                f"training.outer.gradient={self.gradient} is a way back through a rollout, and "
                "training.outer.latents=teacher_forced rolls nothing out; use gradient=full."
            )
        for key in ("gradient_steps", "gradient_rounds"):
            check_least(f"training.outer.{key}", getattr(self, key), 1)
        needs_steps = self.gradient in ("window", "parallel")
        if needs_steps != (self.gradient_steps is not None):
            raise ConfigError(
                f"training.outer.gradient={self.gradient} with gradient_steps="
                f"{self.gradient_steps}; window and parallel need gradient_steps, the others "
                "take none."
            )
        check_least("training.outer.prefix_cache_gib", self.prefix_cache_gib, 0)
        check_least("training.outer.clip_message", self.clip_message, 0)
        check_choice("training.outer.depth", self.depth, ("uniform", "growing", "fixed"))


@dataclass(kw_only=True)
class StagesConfig:
    inner: InnerConfig = field(default_factory=InnerConfig)
    outer: OuterConfig = field(default_factory=OuterConfig)


@dataclass(kw_only=True)
class EvaluationConfig:
    rounds: list[int] | None = option(None, "depths to evaluate; null: 1..rounds")
    batch_size: int = option(250, "rows per forward")
    max_new_tokens: int = option(64, "longest answer, and longest message in text recursion")
    decoding: str = option(
        "plain", "plain | static: the library's static cache, whose step is compiled on a GPU"
    )
    max_rows: int | None = option(None, "evaluate the first rows only")
    controls: list[str | None] = option(list(CONTROLS), "rows beside the trained system")

    def __post_init__(self) -> None:
        for key in ("batch_size", "max_rows"):
            check_least(f"evaluation.{key}", getattr(self, key), 1)
        check_least("evaluation.max_new_tokens", self.max_new_tokens, 1, MOST_LENGTH)
        check_choice("evaluation.decoding", self.decoding, ("plain", "static"))
        for depth in self.rounds or []:
            check_least("evaluation.rounds", depth, 1, MOST_ROUNDS)
        # YAML reads a bare `null` as nothing; here it is a control's name.
        self.controls = [control or "null" for control in self.controls]
        for control in self.controls:
            check_choice("evaluation.controls", str(control), CONTROLS)


@dataclass(kw_only=True)
class ToolsConfig:
    """What the decoder may call while it writes its final text; docs/tools.md."""

    names: list[str] = option([], "any of python, search; python needs allow_code_execution=true")
    max_calls: int = option(5, "calls per answer; the next one is refused")
    output_chars: int = option(6000, "longest result that the decoder reads, characters")
    python_seconds: float = option(10.0, "how long a program may run")
    python_packages: bool = option(False, "programs may import installed packages")
    memory_mib: int = option(512, "MiB of memory that a program and its processes may use")
    processes: int = option(16, "processes and threads that a program may have")
    file_mib: int = option(64, "MiB that a program may write to its temporary folder")
    search_index: str | None = option(None, "JSONL file with title and text, searched by BM25")
    search_url: str | None = option(None, "web service instead, as https://api.tavily.com/search")
    search_key_variable: str = option(
        "TAVILY_API_KEY", "environment variable that holds the web service's key"
    )
    search_seconds: float = option(10.0, "how long the web service may take")
    search_hits: int = option(4, "passages per search")
    search_chars: int = option(320, "characters of each passage")

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
        if self.search_url is not None and not SAFE_URL.fullmatch(self.search_url):
            raise ConfigError(
                f"tools.search_url={self.search_url}: the key would travel unprotected; give an "
                "address that begins with https:// (http:// for this machine only)."
            )
        if not SECRET_NAME.match(self.search_key_variable):
            raise ConfigError(
                f"tools.search_key_variable={self.search_key_variable}: give the name of a "
                "variable that ends in API_KEY or TOKEN, so that logs leave out its value."
            )
        if "search" in self.names and (self.search_index is None) == (self.search_url is None):
            raise ConfigError(
                f"tools.names=[search] with tools.search_index={self.search_index} and "
                f"tools.search_url={self.search_url}: give one of the two."
            )


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
    device: str = option("auto", "auto (a GPU where there is one) | cpu")
    processes: int | None = option(None, "refuse to start with another number; null: any")
    threads: int | None = option(None, "CPU threads per process; null: PyTorch's choice")
    timeout_minutes: float = option(30.0, "how long a process waits for the others")

    def __post_init__(self) -> None:
        check_choice("runtime.backend", self.backend, BACKENDS)
        check_choice("runtime.placement", self.placement, PLACEMENTS)
        check_choice("runtime.device", self.device, ("auto", "cpu"))
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
        for devices in self.devices:
            check_least("plan.devices", devices, 1)


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


def check_tools(tools: ToolsConfig, allow_code_execution: bool) -> None:
    """No program is run that nobody has asked for.

    Raises:
        ConfigError: says what it would mean.
    """
    if "python" in tools.names and not allow_code_execution:
        raise ConfigError(
            "tools.names=[python] runs programs that a model writes, on this machine, in a sandbox "
            "whose limits docs/tools.md states; if you want that, add allow_code_execution=true."
        )


def describe(config_class: type, prefix: str = "") -> list[tuple[str, str, str]]:
    """(key, default, meaning) of every option below ``config_class``, for ``--help``."""
    rows = []
    for f in fields(config_class):
        default = f.default_factory() if callable(f.default_factory) else f.default
        if hasattr(default, "__dataclass_fields__"):
            rows += describe(type(default), f"{prefix}{f.name}.")
        else:
            rows.append((prefix + f.name, str(default), f.metadata.get("doc", "")))
    if config_class is Config:
        rows += describe(AgentConfig, "agents.<name>.") + describe(EdgeConfig, "topology.edges[i].")
    return rows
