"""``--config``, ``--config-dir``, ``--show``, and what a run says of its config."""

import json
import subprocess
import sys

import pytest
import yaml
from launching import environment
from test_bad_input import fails

import rmas_train
from rmas_train.__main__ import main
from rmas_train.compose import compose, config_from, folded, to_dict
from rmas_train.config import AgentConfig
from rmas_train.config.system import shown as on_one_line
from rmas_train.errors import ConfigError
from rmas_train.support.output import stop_log

MINE = {
    "name": "ours",
    "agents": {"one": {"model": "m/one"}, "two": {"model": "m/two"}},
    "topology": {
        "name": "pair",
        "order": ["one", "two"],
        "edges": [{"source": "one", "target": "two"}],
        "decoder": "two",
    },
    "data": {"name": "ours", "folder": "my data", "prompts": "it's $x"},
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(values if isinstance(values, str) else yaml.safe_dump(values))
    return str(path)


def shown(capsys, typed):
    assert main([*typed, "--show"]) == 0
    return yaml.safe_load(capsys.readouterr().out)


def test_show_prints_the_config_and_runs_nothing(capsys, folder):
    typed = ["experiment=relay_dialect", "rounds=2"]
    assert shown(capsys, typed) == to_dict(compose(typed))
    assert not list(folder.iterdir())


def test_a_file_stands_between_the_experiment_and_what_is_typed(capsys, folder):
    path = write(folder / "my.yaml", {"rounds": 5, "training": {"outer": {"lr": 0.5, "steps": 7}}})
    for typed in (
        ["--config", path, "experiment=relay_scrambled", "training.outer.steps=9"],
        ["training.outer.steps=9", f"--config={path}", "experiment=relay_scrambled"],
    ):
        config = shown(capsys, typed)
        outer = config["training"]["outer"]
        assert (config["name"], config["rounds"], outer["steps"]) == ("relay_scrambled", 5, 9)
        assert (outer["lr"], outer["batch_size"]) == (0.5, 96)


def test_a_later_file_wins(capsys, folder):
    one = write(folder / "one.yaml", {"rounds": 5, "seed": 5, "links": "released"})
    two = write(folder / "two.yaml", {"rounds": 6, "experiment": "relay_scrambled"})
    config = shown(capsys, ["--config", one, "--config", two])
    assert (config["rounds"], config["seed"], config["name"]) == (6, 5, "relay_scrambled")
    assert config["links"]["norm"] == "layernorm"


def test_a_typed_choice_wins_over_a_files(capsys, folder):
    path = write(folder / "my.yaml", {"experiment": "relay_dialect", "links": "released"})
    config = shown(capsys, ["--config", path, "experiment=relay", "links=default"])
    assert config["name"] == "relay" and config["links"]["norm"] == "match_embedding"


def test_a_system_of_ones_own_stands_on_nothing_shipped(capsys, folder):
    path = write(folder / "my.yaml", MINE)
    config = shown(capsys, ["--config", path])
    assert set(config["agents"]) == {"one", "two"} and config["topology"] == MINE["topology"] | {
        "edges": [{"source": "one", "target": "two", "next_round": False}]
    }
    assert config["data"]["recipe"] is None and config["data"]["role_texts"] == {}
    assert config["data"]["prompts"] == "it's $x" and config["run_dir"] == "outputs/ours"
    # On an experiment that has agents of these names the file changes them.
    path = write(folder / "swap.yaml", {"agents": {"planner": {"model": "mine"}}})
    config = shown(capsys, ["--config", path, "experiment=relay"])
    assert config["agents"]["planner"]["model"] == "mine" and "critic" in config["agents"]


@pytest.mark.parametrize(
    ("values", "needles"),
    [
        ({"roundz": 3}, ["my.yaml", "'roundz'", "Did you mean 'rounds'"]),
        ({"training": {"outer": {"lrr": 1}}}, ["my.yaml", "Did you mean 'training.outer.lr'"]),
        ({"rounds": "two"}, ["my.yaml", "rounds", "Integer"]),
        ({"defaults": []}, ["my.yaml", "defaults", "--config-dir"]),
        ({"links": "releasd"}, ["links=releasd", "Did you mean 'released'"]),
        ({"data": {"recipe_options": {"_target_": "x"}}}, ["my.yaml", "_target_"]),
        ({"agents": {"plannr": {"model": "x"}}}, ["plannr"]),
        ("rounds: [", ["my.yaml", "line 1", "mend the file"]),
        ("- a", ["my.yaml", "key: value"]),
        ("rounds: 0", ["rounds=0", "1 or more"]),
        ("1: 2", ["my.yaml"]),
        ({"training.outer.lr": 1}, ["my.yaml", "'training.outer.lr' has dots", "training: {"]),
    ],
)
def test_files_that_cannot_work(capsys, folder, values, needles):
    fails(capsys, ["--config", write(folder / "my.yaml", values)], *needles)


def test_a_misspelt_agent_in_a_file(capsys, folder):
    path = write(folder / "my.yaml", {"agents": {"plannr": {"model": "x"}}})
    typed = ["--config", path, "experiment=relay"]
    fails(capsys, typed, "my.yaml: agents.plannr", "Did you mean 'planner'")


@pytest.mark.parametrize(
    ("typed", "needles"),
    [
        (["--config", "nowhere.yaml"], ["nowhere.yaml", "no such file"]),
        (["--config"], ["--config", "expected one argument"]),
        (["--config-dir", "nowhere"], ["nowhere", "no such folder"]),
        (["--confg=x"], ["--confg", "Did you mean '--config'"]),
    ],
)
def test_flags_that_cannot_work(capsys, folder, typed, needles):
    fails(capsys, typed, *needles)


@pytest.fixture
def own(folder):
    """Groups of one's own, in a folder whose name is no plain word."""
    root = folder / "my conf, it's $5"
    write(root / "topology" / "pair.yaml", MINE["topology"])
    write(root / "agents" / "pair.yaml", MINE["agents"])
    write(root / "links" / "default.yaml", {"norm": "none"})
    write(root / "training" / "quick.yaml", {"inner": {"steps": 1}})
    experiment = """\
# @package _global_
defaults:
  - override /agents: pair
  - override /topology: pair
  - override /data: jsonl
name: ours
rounds: 4
"""
    write(root / "experiment" / "ours.yaml", experiment)
    return root


def test_a_folder_of_groups_comes_before_the_shipped_one(capsys, own):
    config = shown(capsys, ["experiment=ours", "--config-dir", str(own), "seed=3"])
    assert (config["name"], config["rounds"], config["seed"]) == ("ours", 4, 3)
    assert set(config["agents"]) == {"one", "two"} and config["links"]["norm"] == "none"
    assert config["data"]["name"] == "mine" and config["topology"]["name"] == "pair"
    # It is gone for the next command.
    assert compose(["experiment=relay"]).links.norm == "match_embedding"


def test_a_group_that_is_not_shipped(capsys, own):
    config = shown(capsys, ["training=quick", "--config-dir", str(own)])
    assert config["training"]["inner"]["steps"] == 1
    typed = ["training=quik", f"--config-dir={own}"]
    fails(capsys, typed, "training=quik", "quick")


def test_a_choice_of_ones_own_may_be_misspelt(capsys, own):
    typed = ["experiment=our", f"--config-dir={own}"]
    fails(capsys, typed, "experiment=our", "Did you mean 'ours'")


@pytest.mark.parametrize(
    ("text", "needles"),
    [
        ("rounds: [", ["bad.yaml", "line"]),
        ("3", ["Invalid loaded object type: int"]),
        ("# @package _global_\nagents: []", ["experiment/bad", "composing config: "]),
        ("# @package _global_\nroundz: 3", ["'roundz'", "Did you mean 'rounds'"]),
    ],
)
def test_broken_files_in_a_folder(capsys, own, text, needles):
    write(own / "experiment" / "bad.yaml", text)
    fails(capsys, ["experiment=bad", f"--config-dir={own}"], *needles)


def test_a_root_of_ones_own_is_refused(capsys, own):
    write(own / "config.yaml", "rounds: 3")
    fails(capsys, [f"--config-dir={own}"], "config.yaml", "--config")


def test_a_sweep_takes_both(capsys, own, folder):
    path = write(folder / "my.yaml", {"seed": 8, "experiment": "ours"})
    typed = ["-m", f"--config-dir={own}", "rounds=1,2", "--config", path, "--show"]
    assert main(typed) == 0
    one, two = yaml.safe_load_all(capsys.readouterr().out)
    assert [one["rounds"], two["rounds"]] == [1, 2] and one["seed"] == two["seed"] == 8
    assert one["run_dir"] == "outputs/ours/sweep/rounds=1" and one["links"]["norm"] == "none"


def test_python_callers_get_what_the_command_gets(folder):
    path = write(folder / "my.yaml", MINE | {"links": "released"})
    config = config_from(path)
    assert config == compose(["--config", path]) == config_from(MINE | {"links": "released"})
    assert config_from(config) is config
    assert config_from(["experiment=relay"]) == compose(["experiment=relay"])
    agents = {"planner": AgentConfig(model="mine")}
    swapped = config_from({"experiment": "relay", "agents": agents, "run_dir": folder / "run"})
    assert swapped.agents["planner"].model == "mine" and swapped.run_dir == str(folder / "run")
    with pytest.raises(ConfigError, match="config: Unknown option 'roundz'"):
        config_from({"roundz": 3})
    assert rmas_train.config_from(["--config", path]) == config


def test_a_run_says_what_differs_and_nothing_else(capsys, overrides, workspace):
    path = write(workspace / "my.yaml", {"seed": 5})
    typed = [*overrides, "stage=inner", "links=released", "--config", path, "experiment=relay"]
    assert main(typed) == 0
    stop_log()
    out = capsys.readouterr().out
    assert "experiment: relay\nchanged: links=released (experiment: default)\n" in out
    for line in ("rounds=2 (experiment: 3)", "stage=inner (experiment: pipeline)"):
        assert f"changed: {line}\n" in out
    assert "changed: seed=5 (experiment: 0)" in out and "weight_decay" not in out
    assert "\nfull config: the same command with --show\n" in out
    assert f"\nfull config: {workspace}/run/inner/config.yaml\n" in out
    assert "steps=3 (experiment: 400)" in out


def test_an_evaluation_says_what_differs_from_its_run(capsys, overrides, workspace):
    assert main([*overrides, "evaluation.systems=[]"]) == 0
    stop_log()
    capsys.readouterr()
    path = write(workspace / "my.yaml", {"evaluation": {"max_rows": 3}})
    typed = ["stage=eval", f"run={workspace / 'run'}", "rounds=1", "--config", path]
    assert main(typed) == 0
    stop_log()
    out = capsys.readouterr().out
    whose = f"({workspace}/run/outer: null)"
    assert f"changed: evaluation.rounds=[1] {whose}" in out
    assert f"changed: evaluation.max_rows=3 {whose}" in out and "lr=" not in out
    results = json.loads((workspace / "run" / "eval" / "results.json").read_text())
    assert results["config"]["evaluation"]["max_rows"] == 3
    with pytest.raises(ConfigError, match="takes its groups from the run"):
        compose([*typed[:2], "--config", write(workspace / "my.yaml", {"experiment": "relay"})])


OLD = "training: {outer: {checkpoint: agent}}\n"


@pytest.mark.parametrize(
    "where",
    [
        "typed",
        pytest.param("file", marks=pytest.mark.slow),
        pytest.param("folder", marks=pytest.mark.slow),
    ],
)
def test_a_former_name_is_warned_of_once(folder, where):
    write(folder / "my.yaml", OLD)
    write(folder / "own" / "experiment" / "old.yaml", f"# @package _global_\n{OLD}")
    typed = {
        "typed": ["training.outer.checkpoint=agent"],
        "file": ["--config=my.yaml"],
        "folder": ["--config-dir=own", "experiment=old", "training.outer.lr=1"],
    }[where]
    command = [sys.executable, "-m", "rmas_train", "rounds=5", *typed, "data.folder="]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.stderr.count("DeprecatedOptionWarning") == 1, done.stderr
    assert "changed: rounds=5 (experiment: 3)" in done.stdout and done.returncode == 2
    changed = "changed: training.outer.recompute=agent (experiment: none)"
    assert (changed in done.stdout) == (where != "folder")


@pytest.mark.parametrize("value", ["\n\nFinal: \\boxed{", ["x", "a\nb"], {"k": "a\nb"}, "plain", 3])
def test_a_value_is_shown_on_one_line(value):
    text = on_one_line(value)
    assert "\n" not in text and yaml.safe_load(text) == value


def test_choices_in_a_folder_of_a_folder_are_listed_as_one():
    assert folded(["a", "b/c", "b/d/e", "b/d/f", "b/g/h/i"]) == ["a", "b/c", "b/d/...", "b/g/..."]
