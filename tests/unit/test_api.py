"""The package from Python, as its users call it."""

import json

import pytest
import torch
from tiny import make_rows

import rmas_train
from rmas_train.api import evaluate, load, train
from rmas_train.errors import ConfigError, DataError
from rmas_train.objectives.outer import OuterObjective
from rmas_train.training.callbacks import Callback


@pytest.fixture
def options(workspace, agent_folders):
    """A config as a dictionary."""
    return {
        "agents": {name: {"model": str(folder)} for name, folder in agent_folders.items()},
        "topology": {
            "name": "sequential",
            "order": ["planner", "critic", "solver"],
            "edges": [
                {"source": "planner", "target": "critic"},
                {"source": "critic", "target": "solver"},
                {"source": "solver", "target": "planner", "next_round": True},
            ],
            "decoder": "solver",
        },
        "data": {
            "name": "tiny",
            "prompts": str(workspace / "prompts"),
            "role_texts": {"planner": "plan", "critic": "refined_plan", "solver": "solution"},
            "answer_pattern": r"(?P<answer>\w+)",
        },
        "training": {
            "inner": {"steps": 2, "batch_size": 4},
            "outer": {"steps": 3, "batch_size": 4},
        },
        "evaluation": {"max_new_tokens": 3, "systems": ["null", "text"]},
        "rounds": 2,
        "run_dir": str(workspace / "run"),
    }


def test_train_evaluate_and_load(options, workspace):
    """Rows given in Python; the system in hand, the one from its folder and the files agree."""
    losses = []
    rows, tests = make_rows(12), make_rows(4, first=50)
    system = train(options, rows=rows, callbacks=[lambda step: losses.append(step.loss)])
    assert len(losses) == 3
    questions = [row["question"] for row in tests]
    answers = system.answer(questions)
    assert answers == load(workspace / "run").answer(questions)
    found = evaluate(options, test_rows=tests)
    assert {(r["system"], r["control"]) for r in found} == {
        ("latent", None),
        ("latent", "null"),
        ("text", None),
    }
    written = [
        json.loads(line)
        for line in (workspace / "run" / "eval" / "answers.jsonl").read_text().splitlines()
    ]
    latent = [w for w in written if (w["system"], w["control"], w["rounds"]) == ("latent", None, 2)]
    assert [w["text"] for w in latent] == [a.text for a in answers]
    assert [w["answer"] for w in latent] == [row["answer"] for row in tests]


def test_an_objective_and_a_callback_of_ones_own(options):
    class Louder(OuterObjective):
        def forward(self, rows, rounds):
            return 2 * super().forward(rows, rounds)

    class Norms(Callback):
        def __init__(self):
            self.seen = []

        def before_update(self, update):
            self.seen.append(update.gradient_norms)

    plain, loud = Norms(), Norms()
    train(options, rows=make_rows(12), callbacks=[plain])
    train(options, rows=make_rows(12), callbacks=[loud], objective=Louder.from_config)
    first, second = plain.seen[0], loud.seen[0]
    assert second == pytest.approx({k: 2 * v for k, v in first.items()}, rel=1e-4)


def test_a_topology_of_ones_own(options, workspace):
    pair = {
        "name": "pair",
        "order": ["critic", "solver"],
        "edges": [{"source": "critic", "target": "solver"}],
        "decoder": "solver",
    }
    (workspace / "prompts" / "critic.yaml").write_text('{"user": "<<question>> note"}')
    system = train(options, rows=make_rows(12), topology=pair)
    assert list(system.team.agents) == ["critic", "solver"]
    assert set(system.links.outer) == {"critic-solver"}
    calls = [(c.round, c.agent) for c in system.unroll(["red two"], rounds=1)]
    assert calls == [(1, "critic"), (1, "solver")]


def test_what_is_wrong_is_told_as_on_the_command_line(options):
    with pytest.raises(ConfigError, match="ronds.*Did you mean 'rounds'"):
        train(options | {"ronds": 3}, rows=make_rows(4))
    with pytest.raises(DataError, match="rows, line 2: no text column 'answer'"):
        train(options, rows=[*make_rows(1), {"question": "a", "plan": "b", "refined_plan": "c"}])
    with pytest.raises(DataError, match="rows: no rows"):
        train(options, rows=[])
    with pytest.raises(ConfigError, match="data.folder is empty"):
        train(options)
    with pytest.raises(ConfigError, match="objective=every"):
        train(options, rows=make_rows(4), objective="every")


def test_the_public_names_are_there():
    for name in rmas_train.__all__:
        assert getattr(rmas_train, name) is not None
    assert rmas_train.load is load and rmas_train.train is train
    assert rmas_train.evaluate is evaluate and torch is not None
