"""The options of an evaluation, of analyses, and of the tools that a decoder may call."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rmas_train.config.system import (
    MOST_LENGTH,
    MOST_ROUNDS,
    MOST_ROWS,
    check_choice,
    check_least,
    option,
)
from rmas_train.errors import ConfigError
from rmas_train.registry import BENCHMARKS, SYSTEMS
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
    retry_tokens: int = option(
        0,
        "an answer in which the grader finds none goes on, once, for so many tokens "
        "(release: 16; code: 256)",
    )
    retry_text: str = option(
        "\n\nFinal Answer: \\boxed{", "what the decoder reads before it goes on, part of the answer"
    )
    lenient: bool = option(
        False, "count the same texts also as the release does (accuracy_lenient), for comparison"
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
    stop_entropy: float = option(
        0.1, "systems=[stop_entropy]: stop when an answer's tokens have this mean entropy, nats"
    )
    stop_rule: str | None = option(
        None, "systems=[stop_trained]: run folder with a result of analyses=[depth]"
    )
    stop_chance: float = option(
        0.9, "systems=[stop_trained]: stop when the answer is right with this chance, by that rule"
    )
    systems: list[str | None] = option(
        list(SYSTEMS_BESIDE), "evaluated beside the trained system; single: each agent, given all"
    )

    def __post_init__(self) -> None:
        for key in ("batch_size", "max_rows"):
            check_least(f"evaluation.{key}", getattr(self, key), 1)
        check_least("evaluation.max_new_tokens", self.max_new_tokens, 1, MOST_LENGTH)
        check_least("evaluation.stop_entropy", self.stop_entropy, 0)
        check_least("evaluation.stop_chance", self.stop_chance, 0, 1)
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
        if self.textgrad_url is not None and not self.textgrad_model:
            raise ConfigError(
                f"evaluation.textgrad_url={self.textgrad_url} has models with names; give "
                "evaluation.textgrad_model."
            )
        check_least("evaluation.textgrad_tokens", self.textgrad_tokens, 1, MOST_LENGTH)
        if not self.benchmarks:
            raise ConfigError("evaluation.benchmarks=[]: name one or more; `test` is the data's.")

    def _check_sampling(self) -> None:
        check_least("evaluation.temperature", self.temperature, 0, 100)
        check_least("evaluation.samples", self.samples, 1, MOST_SAMPLES)
        check_least("evaluation.price_per_hour", self.price_per_hour, 0)
        check_least("evaluation.single_rows", self.single_rows, 0)
        check_least("evaluation.retry_tokens", self.retry_tokens, 0, MOST_LENGTH)
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
class AnalysisConfig:
    """Of ``stage=analyse``."""

    target: str = option(
        "answer",
        "attribution: of which answer | answer: what the system writes | loss: the gold one",
    )
    alternatives: int = option(4, "attribution: other rows' messages per leave-one-out credit")
    examples: int = option(8, "attribution, lens: rows that are written out")
    top_k: int = option(5, "lens: tokens per vector")
    column: str = option("answer", "probes: column of the rows that is to be read off")

    def __post_init__(self) -> None:
        check_choice("analysis.target", self.target, ("answer", "loss"))
        for key in ("alternatives", "top_k"):
            check_least(f"analysis.{key}", getattr(self, key), 1, MOST_ROWS)
        check_least("analysis.examples", self.examples, 0, MOST_ROWS)


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
