"""The tools that a config asks for."""

from __future__ import annotations

from pathlib import Path

from rmas_train.config import ToolsConfig
from rmas_train.config.evaluation import check_tools
from rmas_train.tools.calls import Tool, Toolbox
from rmas_train.tools.python_tool import Limits, PythonTool
from rmas_train.tools.search import LocalIndex, SearchTool, WebService


def make_toolbox(config: ToolsConfig, allow_code_execution: bool = False) -> Toolbox | None:
    """The tools of a config; None if ``tools.names`` is empty.

    Args:
        config: options under ``tools``.
        allow_code_execution: programs that the decoder writes may be run.

    Raises:
        ConfigError: Python without ``allow_code_execution``; a library or a key that is missing.
        DataError: a search index that cannot be read.
    """
    check_tools(config, allow_code_execution)
    made: dict[str, Tool] = {}
    if "python" in config.names:
        made["python"] = PythonTool(limits(config))
    if "search" in config.names:
        made["search"] = search_tool(config)
    return Toolbox(made, config.max_calls, config.output_chars) if made else None


def describe_tools(tools: Toolbox) -> str:
    """A line for the log: the tools, and the active protections of the sandbox."""
    python = tools.tools.get("python")
    held = sorted(python.active) if isinstance(python, PythonTool) else None
    return f"tools of the decoder: {', '.join(tools.tools)}" + (
        f"; sandbox: {', '.join(held) or 'limits alone'}" if held is not None else ""
    )


def limits(config: ToolsConfig) -> Limits:
    return Limits(
        seconds=config.python_seconds,
        memory_mib=config.memory_mib,
        processes=config.processes,
        file_mib=config.file_mib,
        output_chars=config.output_chars,
        packages=config.python_packages,
    )


def search_tool(config: ToolsConfig) -> SearchTool:
    if config.search_url is not None:
        source: LocalIndex | WebService = WebService(
            config.search_url, config.search_key_variable, config.search_seconds
        )
    else:
        source = LocalIndex(Path(config.search_index or ""))
    return SearchTool(source, config.search_hits, config.search_chars)
