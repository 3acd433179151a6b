"""Options of agents, topology, links and data: what a system is, and what it reads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from reprlib import repr as short
from typing import Any

import yaml

from rmas_train.errors import ConfigError, did_you_mean
from rmas_train.registry import GRADERS, LINK_VARIANTS

MOST_ROUNDS, MOST_LENGTH, MOST_STEPS, MOST_ROWS = 10_000, 1_000_000, 10_000_000, 1_000_000


def option(default: Any, doc: str) -> Any:
    """A dataclass field with its explanation, which ``--help`` prints."""
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata={"doc": doc})
    return field(default=default, metadata={"doc": doc})


def shown(value: Any) -> str:
    """A value on one line, as YAML has it; without a line break in it, as it can be typed."""
    dump = partial(yaml.safe_dump, default_flow_style=True, width=10**6, allow_unicode=True)
    text = str(dump(value)).removesuffix("...\n").strip()
    return str(dump(value, default_style='"')).strip() if "\n" in text else text


def check_choice(key: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"{key}={value}: no such choice. {did_you_mean(str(value), known)}")


def check_least(key: str, value: float | None, least: float, most: float = 1e9) -> None:
    """In range; larger values than ``most`` would fill the memory or never finish."""
    if value is not None and not value >= least:
        raise ConfigError(f"{key}={value} is too small; set {key} to {least} or more.")
    if value is not None and not value <= most:
        raise ConfigError(f"{key}={short(value)} is too large; set {key} to {most:.0f} or less.")


WITHOUT_LAYERNORM = ("linear", "linear_res", "2layer", "res_2layer")


DTYPES = ("auto", "float32", "bfloat16", "float64")
ATTENTIONS = ("sdpa", "eager", "flash_attention_2")


@dataclass(kw_only=True)
class AgentConfig:
    model: str = option("", "folder (Hugging Face format), or hub id")
    revision: str | None = option(None, "hub commit; pin it for results that you publish")
    dtype: str = option(
        "auto",
        "auto (bfloat16 on a GPU, else float32) | float32 | bfloat16 | float64; links stay float32",
    )
    trust_remote_code: bool = option(False, "run Python that comes with the model")
    attention: str = option(
        "sdpa", "sdpa | eager | flash_attention_2 (its package, a GPU and bfloat16 are needed)"
    )
    quantization: str | None = option(
        None, "4bit | 8bit: quantise the frozen weights at loading, by bitsandbytes"
    )
    adapter: str | None = option(None, "PEFT adapter to merge into the model: folder, or hub id")
    adapter_revision: str | None = option(None, "hub commit of the adapter")
    template: Any = option(
        None,
        "none: the prompt's text as it is | plain | alpaca | chatml | llama3 | gemma: built-in "
        "chat templates | {enable_thinking: true, ...}: values for the model's own",
    )

    def __post_init__(self) -> None:
        check_choice("agents.<name>.dtype", self.dtype, DTYPES)
        check_choice("agents.<name>.attention", self.attention, ATTENTIONS)
        if self.quantization is not None:
            check_choice("agents.<name>.quantization", self.quantization, ("4bit", "8bit"))
        if not isinstance(self.template, str | dict | None):
            raise ConfigError(
                f"agents.<name>.template={short(self.template)}: give a name, or values as in "
                "{enable_thinking: true}."
            )

    def on(self, device: str) -> AgentConfig:
        """The same with ``auto`` settled; ``device``: its type, ``cuda`` or ``cpu``."""
        settled = "bfloat16" if device == "cuda" else "float32"
        return replace(self, dtype=settled) if self.dtype == "auto" else self


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
    variant: str = option(
        "ln_res_2layer",
        "ln_res_2layer (release) | linear | linear_res | 2layer | res_2layer; or a plugin's",
    )
    norm: str = option(
        "match_embedding",
        "match_embedding | layernorm (release: 50 to 80 times louder than embeddings) | none",
    )
    edge_input: str = option("inner", "inner: outer(inner(h)) (release) | hidden: outer(h) (paper)")
    message_update: str = option(
        "replace",
        "replace: each round's message is new | residual: added to that of the round before",
    )
    shared: bool = option(False, "one outer link for all edges, between agents of one width")
    shared_space: int | None = option(
        None,
        "width of one space that all messages go through, an agent's to start aligned: a link into "
        "it per sender and one out of it per receiver; null: a link per edge",
    )
    readout: str = option(
        "hidden",
        "what thoughts and messages are made of: hidden (states; release and paper) | "
        "expected_embedding (thoughts under the agent's own next-token distribution) | vocabulary "
        "(messages too, over shared strings); docs/links.md",
    )
    temperature: float = option(1.0, "of the next-token distribution of a read-out")
    top_k: int | None = option(None, "likeliest tokens that a read-out counts; null: all")
    init: str = option("aligned", "aligned (closed form) | default (PyTorch's, as the release)")
    start_pairs: str = option(
        "all", "aligned start: all shared ordinary tokens | seen: only those in the data"
    )
    ridge: float = option(1e-2, "aligned start: ridge weight over the mean squared singular value")
    start_noise: float = option(
        0.0, "aligned start: Gaussian noise on W3, in standard deviations of its entries"
    )

    def __post_init__(self) -> None:
        LINK_VARIANTS.check(self.variant)
        check_choice("links.norm", self.norm, ("match_embedding", "layernorm", "none"))
        check_choice("links.edge_input", self.edge_input, ("inner", "hidden"))
        check_choice("links.message_update", self.message_update, ("replace", "residual"))
        check_choice("links.readout", self.readout, ("hidden", "expected_embedding", "vocabulary"))
        check_least("links.temperature", self.temperature, 1e-3)
        check_least("links.top_k", self.top_k, 1)
        check_choice("links.init", self.init, ("aligned", "default"))
        check_choice("links.start_pairs", self.start_pairs, ("all", "seen"))
        self._check_readout()
        self._check_shared_space()
        check_least("links.ridge", self.ridge, 0)
        check_least("links.start_noise", self.start_noise, 0)
        if self.norm == "layernorm" and self.variant in WITHOUT_LAYERNORM:
            raise ConfigError(
                f"links.norm=layernorm needs the closing LayerNorm of ln_res_2layer, but "
                f"links.variant={self.variant}; use links.norm=match_embedding or none."
            )
        if self.init == "aligned" and self.variant == "2layer" and self.readout != "vocabulary":
            raise ConfigError(
                "links.variant=2layer has no residual path that an aligned start could fill; "
                "use links.variant=res_2layer or links.init=default."
            )

    def _check_shared_space(self) -> None:
        check_least("links.shared_space", self.shared_space, 1, 1 << 16)
        if self.shared_space is not None and (self.shared or self.readout == "vocabulary"):
            other = "shared=true" if self.shared else "readout=vocabulary"
            raise ConfigError(
                f"links.shared_space={self.shared_space} with links.{other}: one link for all "
                "edges needs no shared space, and a vocabulary read-out has one, the strings that "
                "vocabularies share; leave one of the two out."
            )

    def _check_readout(self) -> None:
        """A read-out reads hidden states, and has no closing LayerNorm."""
        wanted = {"vocabulary": "hidden", "expected_embedding": "inner"}.get(self.readout)
        if wanted and self.edge_input != wanted:
            raise ConfigError(
                f"links.edge_input={self.edge_input} with links.readout={self.readout}: its "
                f"messages are made of {_MADE_OF[wanted]}; set links.edge_input={wanted}, or take "
                "the group links=vocabulary."
            )
        if wanted and self.norm == "layernorm":
            raise ConfigError(
                f"links.norm=layernorm with links.readout={self.readout}: a read-out stands in the "
                "place of the closing LayerNorm; use links.norm=match_embedding or none."
            )


_MADE_OF = {"hidden": "hidden states", "inner": "thoughts"}


@dataclass(kw_only=True)
class DataConfig:
    name: str = option("", "task name in results")
    hub: dict[str, str | None] = option(
        {}, "hub id of each data set that the recipe reads -> its commit; null: not pinned"
    )
    recipe: str | None = option(None, "folder of data_recipes/ whose build.py makes the files")
    recipe_options: dict[str, Any] = option({}, "passed to build.py as --key value")
    folder: str = option("", "where the files are, or where the recipe writes them")
    train: str | None = option("train.jsonl", "training rows, in folder; null: none (a benchmark)")
    test: str = option(
        "test.jsonl", "test rows, in folder (.jsonl, .json, .parquet, .csv); never trained on"
    )
    test_rows: int | None = option(None, "rows that test must have; null: any number")
    columns: dict[str, str] = option(
        {}, "our column -> theirs, in all of these files, as {question: prompt, answer: response}"
    )
    valid: str | None = option(
        None, "validation rows, in folder; see training.outer.validate_every"
    )
    more_tests: dict[str, str] = option(
        {}, "name -> file in folder: further test rows, evaluated as <data.name>_<name>"
    )
    allow_shared_rows: bool = option(
        False, "test rows may be training rows too; otherwise that is an error, docs/data.md"
    )
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
        r"(?s)^\s*(?P<answer>\S(?:.*\S)?)\s*$",
        "regular expression whose group `answer` is compared exactly; the whole text, stripped",
    )
    source_column: str | None = option(
        None,
        "column with what a question comes from (a passage, a template); questions that "
        "share one are no independent ones to the statistics",
    )
    grader: str = option(
        "pattern",
        "pattern: answer_pattern, compared exactly | choices: the first of the row's `choices` | "
        "math: equal as mathematics | letter: of an option | squad: the same words (and F1) | "
        "code: the row's unit tests (allow_code_execution=true) | reasoning_gym: that library's "
        "scorer | llm: evaluation.judge | lenient_math, lenient_letter, lenient_text: as the "
        "release counts; or a plugin's",
    )
    test_seconds: float = option(
        10.0, "grader code: seconds of one run, all statements or one case (release: 10 and 6)"
    )
    problem_seconds: float = option(120.0, "grader code: seconds of all runs of one answer")
    max_length: int = option(4096, "tokens: longest prompt with its slots and answer")

    def __post_init__(self) -> None:
        GRADERS.check(self.grader)
        check_least("data.max_length", self.max_length, 1)
        check_least("data.test_rows", self.test_rows, 1)
        for key in ("test_seconds", "problem_seconds"):
            check_least(f"data.{key}", getattr(self, key), 0.1, 3600)
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
