"""Roles of one model share its weights; an inner link may train on a set of its own."""

import json

import pytest
import torch
from safetensors.torch import load_file
from tiny import make_rows

import rmas_train
from rmas_train.__main__ import main
from rmas_train.compose import compose
from rmas_train.errors import ConfigError, DataError
from rmas_train.runs.load import load_run
from rmas_train.runtime.runtime import Runtime
from rmas_train.support.output import stop_log


@pytest.fixture(autouse=True)
def logs():
    yield
    stop_log()


def links_of(run):
    return load_file(run / "outer" / "links" / "links.safetensors")


def test_two_roles_of_one_model_are_loaded_once(overrides, agent_folders, workspace):
    typed = [*overrides, f"agents.critic.model={agent_folders['planner']}"]
    config = compose(typed)
    agents = load_run(config, Runtime(config.runtime)).team.agents
    assert agents["planner"].model is agents["critic"].model
    assert agents["planner"].model is not agents["solver"].model
    assert [a.name for a in agents.values()] == ["planner", "critic", "solver"]
    assert main(typed) == 0
    loaded = rmas_train.load(workspace / "run").team.agents
    assert loaded["planner"].model is loaded["critic"].model


@pytest.mark.slow
def test_sharing_changes_no_number(overrides, agent_folders, workspace, tmp_path):
    """The same model from two folders is two models; every link is bit-equal all the same."""
    copy = tmp_path / "copy"
    copy.symlink_to(agent_folders["planner"])
    for name, folder in (("shared", agent_folders["planner"]), ("apart", copy)):
        assert main([*overrides, f"agents.critic.model={folder}", f"run_dir={name}"]) == 0
        stop_log()
    shared, apart = links_of(workspace / "shared"), links_of(workspace / "apart")
    assert all(torch.equal(shared[k], apart[k]) for k in shared)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_an_inner_file_equals_a_run_on_those_rows(overrides, workspace):
    """The critic's own set: its inner link is that of a run whose training rows they are."""
    own = make_rows(24, first=40)
    write(workspace / "data" / "critic.jsonl", [r | {"plan": r["plan"]} for r in own])
    write(workspace / "data" / "only.jsonl", own)
    common = [*overrides, "stage=inner"]
    assert main([*common, "data.inner_files.critic=critic.jsonl", "run_dir=own"]) == 0
    stop_log()
    assert main([*common, "data.train=only.jsonl", "run_dir=only"]) == 0
    stop_log()
    assert main([*common, "run_dir=plain"]) == 0
    own, only, plain = (
        load_file(workspace / r / "inner" / "links" / "links.safetensors")
        for r in ("own", "only", "plain")
    )
    for key in own:
        expected = only if key.startswith("inner.critic") else plain
        if not key.endswith("scale"):
            assert torch.equal(own[key], expected[key]), key


def test_a_set_without_an_agents_column_is_named(overrides, workspace):
    write(workspace / "data" / "critic.jsonl", [{"question": "red", "answer": " one"}])
    config = compose([*overrides, "data.inner_files.critic=critic.jsonl"])
    with pytest.raises(DataError, match=r"critic\.jsonl, line 1: no text column 'plan'"):
        load_run(config, Runtime(config.runtime))


def test_an_unknown_agent_in_inner_files_is_named(overrides):
    config = compose([*overrides, "data.inner_files.critik=critic.jsonl"])
    with pytest.raises(ConfigError, match=r"data\.inner_files\.critik: .*Did you mean 'critic'"):
        load_run(config, Runtime(config.runtime))
