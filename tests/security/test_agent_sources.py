"""Agents from elsewhere: their own code stays unrun, and what was loaded is written down."""

import json
import shutil
import warnings
from pathlib import Path

import pytest

import rmas_train
from rmas_train.__main__ import main
from rmas_train.config import AgentConfig
from rmas_train.engine.loading import load_agent
from rmas_train.errors import AgentError, RemoteCodeWarning, UnpinnedWarning
from rmas_train.support.output import stop_log

SHA = "0123456789abcdef0123456789abcdef01234567"
CODE = """
from pathlib import Path
from transformers import {family}Config, {family}ForCausalLM
Path({trap!r}).touch()
class OwnConfig({family}Config):
    model_type = {kind!r}
class OwnModel({family}ForCausalLM):
    config_class = OwnConfig
"""


def with_code(folder: Path, agent: Path, trap: Path, kind: str) -> Path:
    """The agent with a module of its own, which leaves a trace when it runs."""
    shutil.copytree(agent, folder)
    config = json.loads((folder / "config.json").read_text())
    auto = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    config |= {"model_type": kind, "auto_map": auto}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(CODE.format(family="Qwen3", trap=str(trap), kind=kind))
    return folder


@pytest.fixture
def trap(tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "m"))
    return tmp_path / "sprung"


def test_a_model_that_needs_its_own_code_is_refused(tmp_path, agent_folders, trap):
    folder = with_code(tmp_path / "agent", agent_folders["planner"], trap, "of_its_own")
    with pytest.raises(AgentError, match=r"set agents\.planner\.trust_remote_code=true") as error:
        load_agent("planner", AgentConfig(model=str(folder)))
    assert len(str(error.value).splitlines()) == 1 and not trap.exists()


def test_code_beside_a_known_family_is_not_run(tmp_path, agent_folders, trap):
    folder = with_code(tmp_path / "agent", agent_folders["planner"], trap, "qwen3")
    agent = load_agent("planner", AgentConfig(model=str(folder)))
    assert type(agent.model).__module__.startswith("transformers.models.") and not trap.exists()


def test_no_stage_runs_code_unasked(tmp_path, agent_folders, trap, overrides, capsys):
    folder = with_code(tmp_path / "agent", agent_folders["planner"], trap, "of_its_own")
    typed = [*overrides, f"agents.planner.model={folder}"]
    for stage in ("inner", "pipeline", "plan"):
        assert main([*typed, f"stage={stage}"]) == 2
        error = capsys.readouterr().err.strip()
        assert len(error.splitlines()) == 1 and "agents.planner" in error
        stop_log()
    assert not trap.exists()


def test_code_that_was_asked_for_runs_with_a_warning(tmp_path, agent_folders, trap):
    folder = with_code(tmp_path / "agent", agent_folders["planner"], trap, "of_its_own")
    with pytest.warns(RemoteCodeWarning, match="agent planner RUNS PYTHON that comes with"):
        load_agent("planner", AgentConfig(model=str(folder), trust_remote_code=True))
    assert trap.exists()


@pytest.mark.slow
def test_a_saved_config_cannot_ask_for_code(finished, tmp_path, capsys):
    """Somebody's run folder says so; the person at the keyboard has to."""
    place, _ = finished
    text = (place.run_dir / "outer" / "config.yaml").read_text()
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    text = text.replace("trust_remote_code: false", "trust_remote_code: true", 1)
    (theirs / "config.yaml").write_text(text)
    assert main(["stage=eval", f"run={theirs}"]) == 2
    error = capsys.readouterr().err
    assert "add agents.planner.trust_remote_code=true to this command" in error


def test_an_adapter_cannot_name_another_model(tmp_path, agent_folders):
    folder = tmp_path / "agent"
    shutil.copytree(agent_folders["planner"], folder)
    named = {"base_model_name_or_path": "somebody/else", "peft_type": "LORA"}
    (folder / "adapter_config.json").write_text(json.dumps(named))
    with pytest.raises(AgentError, match="holds an adapter"):
        load_agent("planner", AgentConfig(model=str(folder)))


@pytest.fixture
def hub(tmp_path, agent_folders, monkeypatch):
    """The hub's cache as its client lays it out, with ``org/planner`` on branch ``main``."""
    cache = tmp_path / "hub"
    repository = cache / "models--org--planner"
    snapshot, blobs = repository / "snapshots" / SHA, repository / "blobs"
    for folder in (snapshot, blobs, repository / "refs"):
        folder.mkdir(parents=True)
    (repository / "refs" / "main").write_text(SHA)
    for i, file in enumerate(sorted(agent_folders["planner"].iterdir())):
        shutil.copy(file, blobs / f"{i:064x}")
        (snapshot / file.name).symlink_to(f"../../blobs/{i:064x}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return cache


def test_an_unpinned_agent_is_named_with_what_was_loaded(hub):
    with pytest.warns(
        UnpinnedWarning, match=rf"^org/planner has no .* set agents\.planner\.revision={SHA}"
    ):
        agent = load_agent("planner", AgentConfig(model="org/planner"))
    assert agent.revision == SHA


@pytest.mark.parametrize("revision", [SHA, "main"])
def test_a_pinned_agent_is_loaded_quietly(hub, revision):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agent = load_agent("planner", AgentConfig(model="org/planner", revision=revision))
    assert agent.revision == SHA


def test_a_revision_that_is_not_there_is_one_line(hub):
    with pytest.raises(AgentError, match=r"agents\.planner\.model=org/planner cannot") as error:
        load_agent("planner", AgentConfig(model="org/planner", revision="f" * 40))
    assert len(str(error.value).splitlines()) == 1


def test_the_run_and_its_links_record_the_commit(hub, overrides, workspace, capsys):
    typed = ["agents.planner.model=org/planner", "evaluation.systems=[]"]
    with pytest.warns(UnpinnedWarning):
        assert main([*overrides, *typed]) == 0
    stop_log()
    run = workspace / "run"
    for stage in ("inner", "outer", "eval"):
        agents = json.loads((run / stage / "environment.json").read_text())["agents"]
        assert agents["planner"]["revision"] == SHA
        assert agents["critic"]["revision"] is None and len(agents["critic"]["fingerprint"]) == 64
    card = json.loads((run / "outer" / "links" / "links.json").read_text())
    assert card["agents"]["planner"]["revision"] == SHA
    system = rmas_train.load(run)  # of the commit in the card, so without a warning
    assert system.team.agents["planner"].revision == SHA


def test_weights_without_a_tokenizers_commit_are_of_one_commit(hub):
    """A branch that moves between two reads does not mix two commits."""
    (hub / "models--org--planner" / "refs" / "main").write_text("f" * 40)
    with pytest.raises(AgentError):
        load_agent("planner", AgentConfig(model="org/planner"))
    assert load_agent("planner", AgentConfig(model="org/planner", revision=SHA)).revision == SHA
