"""`stage=plan`: from configs alone."""

import json
import shutil

import pytest
from test_bad_input import fails
from tiny import make_family

from rmas_train.__main__ import main

LENGTHS = ["plan.prefix_tokens=20", "plan.suffix_tokens=3", "plan.answer_tokens=4"]


@pytest.fixture
def shapes(overrides, agent_folders, workspace):
    """The tiny agents as bare config.json files."""
    typed = []
    for name, folder in agent_folders.items():
        (workspace / "shapes" / name).mkdir(parents=True)
        shutil.copy(folder / "config.json", workspace / "shapes" / name)
        typed.append(f"agents.{name}.model={workspace / 'shapes' / name}")
    return [o for o in overrides if not o.startswith("agents.")] + [*typed, "stage=plan"]


@pytest.mark.slow
def test_a_plan_needs_configs_only(shapes, workspace, capsys):
    assert main([*shapes, *LENGTHS, "plan.devices=[1,2]"]) == 0
    shown = capsys.readouterr().out
    assert "activations" in shown and "n = 2" in shown
    plan = json.loads((workspace / "run" / "plan" / "plan.json").read_text())
    one, two = plan["plans"]
    assert one["rows"] == 4 and two["rows"] == 2 and one["fits"]
    assert one["activations"] > two["activations"] > 0
    assert one["optimizer"] == 2 * one["gradients"] > 0
    assert one["total"] == pytest.approx(
        sum(one[k] for k in ("agents", "links", "gradients", "optimizer", "activations", "kept"))
    )
    assert two["bytes_to_reduce"] == two["gradients"]
    assert "layers received if sharded" in shown
    alone, moved = one["communication"], two["communication"]
    assert alone["sharded_weights"] == one["agents"] > moved["sharded_weights"]
    assert alone["sharded_received"] == alone["gradients_sent"] == 0
    assert moved["gradients_sent"] == two["gradients"] and moved["sharded_received"] > 0
    layers = 2  # of each tiny agent
    assert moved["sharded_gathers"] == layers * sum(two["layer_gathers"].values())


@pytest.mark.slow
def test_a_plan_that_does_not_fit_names_knobs(shapes, capsys):
    assert main([*shapes, *LENGTHS, "plan.device_gib=0.0002", "plan.devices=[1]"]) == 0
    shown = capsys.readouterr().out
    assert "NO" in shown and "training.outer.recompute=agent" in shown
    assert "bfloat16" in shown


def test_lengths_come_from_the_data(overrides, workspace):
    assert main([*overrides, "stage=plan", "plan.devices=[1]"]) == 0
    plan = json.loads((workspace / "run" / "plan" / "plan.json").read_text())
    assert plan["tokens"]["solver"]["answer"] >= 2 and plan["tokens"]["critic"]["prefix"] > 3


def test_what_a_plan_lacks_is_named(shapes, capsys):
    fails(capsys, shapes, "no tokenizer", "plan.prefix_tokens")
    fails(capsys, [*shapes, *LENGTHS, "plan.answer_tokens=0"], "plan.answer_tokens=0")
    fails(capsys, [*shapes, *LENGTHS, "agents.critic.model=/no/where"], "agents.critic.model")


@pytest.mark.slow
@pytest.mark.parametrize(("memory", "choice"), [(2**30, "none"), (2**18, "agent")])
def test_auto_checkpoints_where_the_plan_says_so(overrides, capsys, monkeypatch, memory, choice):
    monkeypatch.setattr("rmas_train.planning.recompute.memory_of", lambda device: float(memory))
    typed = [*overrides, "training.outer.recompute=auto", "evaluation.systems=[]"]
    assert main(typed) == 0
    assert f"recompute=auto: {choice}" in capsys.readouterr().out


@pytest.mark.slow
def test_recurrent_agents_can_be_planned(shapes, workspace):
    """Qwen3.5's hybrid layers, the unit of which is two here."""
    make_family("qwen3_5", "solver").model.config.save_pretrained(workspace / "shapes" / "solver")
    assert main([*shapes, *LENGTHS, "plan.devices=[1]"]) == 0
    plan = json.loads((workspace / "run" / "plan" / "plan.json").read_text())
    assert plan["plans"][0]["activations"] > 0
