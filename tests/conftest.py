"""Tiny agents built from configs: three families, widths, vocabularies; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny import TINY, in_float64, make_agent, make_team, write_workspace

from rmas_train.agents.agent import Agent
from rmas_train.data.rows import Table
from rmas_train.recursion import Team

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def agent_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Hugging Face folders of the three tiny agents."""
    root = tmp_path_factory.mktemp("agents")
    for name in TINY:
        agent = make_agent(name)
        agent.model.save_pretrained(root / name)
        agent.tokenizer.save_pretrained(root / name)
    return {name: root / name for name in TINY}


@pytest.fixture
def agents() -> dict[str, Agent]:
    return {name: make_agent(name) for name in TINY}


@pytest.fixture
def agents64() -> dict[str, Agent]:
    """The same in float64, for numerics."""
    return {name: in_float64(make_agent(name)) for name in TINY}


@pytest.fixture
def table() -> Callable[[list[dict]], Table]:
    """Rows as a table."""
    return lambda rows: Table(Path("rows.jsonl"), rows)


@pytest.fixture
def team(agents: dict[str, Agent]) -> Team:
    return make_team(agents)


@pytest.fixture
def workspace(
    tmp_path: Path, agent_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder with data and prompts of a tiny task, which is also the working folder."""
    write_workspace(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def overrides(workspace: Path, agent_folders: dict[str, Path]) -> list[str]:
    """Command-line overrides of a small run on the tiny agents."""
    return [
        *(f"agents.{name}.model={folder}" for name, folder in agent_folders.items()),
        "data.name=tiny",
        "data.recipe=null",
        f"data.folder={workspace / 'data'}",
        f"data.prompts={workspace / 'prompts'}",
        "data.answer_pattern='(?P<answer>\\w+)'",
        "training.inner.steps=3",
        "training.outer.steps=3",
        "training.inner.batch_size=4",
        "training.outer.batch_size=4",
        "evaluation.max_new_tokens=3",
        "rounds=2",
        f"run_dir={workspace / 'run'}",
    ]
