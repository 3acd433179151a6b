"""Options of the evaluation and of the tools that the last answer may call."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rmas_train.config.options import MOST_LENGTH, MOST_ROUNDS, check_choice, check_least, option
from rmas_train.errors import ConfigError
from rmas_train.registry import BENCHMARKS, SYSTEMS
from rmas_train.support.redact import SECRET_NAME

TOOLS = ("python", "search")
SAFE_URL = re.compile(r"(https://[^\s/@]+|http://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?)(/\S*)?")
SYSTEMS_BESIDE = ("start", "null", "shuffled", "untrained", "decoder_alone", "text")


@dataclass(kw_only=True)
class EvaluationConfig:
    rounds: list[int] | None = option(None, "depths to evaluate; null: 1..rounds")
    batch_size: int = option(250, "rows per forward")
    max_new_tokens: int = option(64, "longest answer, and longest message in text recursion")
    decoding: str = option(
        "plain", "plain | static: the library's static cache, whose step is compiled on a GPU"
    )
    max_rows: int | None = option(None, "evaluate the first rows only")
    benchmarks: list[str] = option(["test"], "test: the data's test rows; or a plugin's")
    systems: list[str | None] = option(list(SYSTEMS_BESIDE), "evaluated beside the trained system")

    def __post_init__(self) -> None:
        for key in ("batch_size", "max_rows"):
            check_least(f"evaluation.{key}", getattr(self, key), 1)
        check_least("evaluation.max_new_tokens", self.max_new_tokens, 1, MOST_LENGTH)
        check_choice("evaluation.decoding", self.decoding, ("plain", "static"))
        for depth in self.rounds or []:
            check_least("evaluation.rounds", depth, 1, MOST_ROUNDS)
        # YAML reads a bare `null` as nothing; here it is a system's name.
        self.systems = [name or "null" for name in self.systems]
        for name in self.systems:
            SYSTEMS.check(str(name))
        for name in self.benchmarks:
            BENCHMARKS.check(name)
        if not self.benchmarks:
            raise ConfigError("evaluation.benchmarks=[]: name one or more; `test` is the data's.")


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
