"""The package from Python, as its users call it."""

import json

import pytest
import torch
from tiny import make_rows

import rmas_train
from rmas_train.api import evaluate, load, train
from rmas_train.errors import CheckpointError, ConfigError, DataError
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


@pytest.fixture
def trained(options):
    return train(options, rows=make_rows(12))


ASKED = [
    (lambda s: s.answer({"question": "red"}), "one row"),
    (lambda s: s.answer(["red"], batch_size=-1), "batch_size=-1"),
    (lambda s: s.answer(["red"], rounds=1.5), "rounds=1.5"),
    (lambda s: s.answer([5]), "question 0 is 5"),
    (lambda s: s.messages([]), "no questions"),
    (lambda s: list(s.unroll(["red"], 2, answer_rounds=[3])), "answer_rounds has 3"),
    (lambda s: s.answer(["red"], interventions=[lambda m, e, r: None]), "gave NoneType"),
    (lambda s: s.answer(["red"], interventions=print), "give a list"),
]


def test_wrong_questions_are_told_in_one_line(trained):
    for ask, message in ASKED:
        with pytest.raises((ConfigError, DataError), match=message):
            ask(trained)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"topology": {"order": ["solver"], "foo": 1}}, "foo"),
        ({"topology": "pair"}, "topology='pair'"),
        ({"objective": OuterObjective}, "give a registered name"),
        ({"objective": "cosine"}, "training.outer.objective=cosine"),
        ({"callbacks": [3]}, "callback 3"),
        ({"callbacks": [Callback]}, "callback <class"),
        ({"rows": "rows.jsonl"}, "give a list of rows"),
        ({"rows": ["a"]}, "rows, line 1"),
        ({"rows": [{"question": torch.ones(1)}]}, "rows, line 1.*serializable"),
    ],
)
def test_wrong_arguments_are_told_before_anything_is_trained(options, workspace, given, message):
    with pytest.raises((ConfigError, DataError), match=message):
        train(options, **({"rows": make_rows(12)} | given))
    assert not (workspace / "run" / "inner").exists()


def test_an_objective_gives_one_number_per_term(options):
    class Odd(OuterObjective):
        def count(self, rows):
            return torch.tensor([3, 4])

    with pytest.raises(ConfigError, match=r"Odd: forward gives \(1,\), count \(2,\)"):
        train(options, rows=make_rows(12), objective=Odd.from_config)


def test_a_run_does_not_go_on_under_another_objective(options):
    class Louder(OuterObjective):
        pass

    def stop(step):
        if step.step == 1:
            raise KeyboardInterrupt

    options["training"]["outer"]["save_every"] = 1
    with pytest.raises(KeyboardInterrupt):
        train(options, rows=make_rows(12), objective=Louder.from_config, callbacks=[stop])
    with pytest.raises(CheckpointError, match=r"objective: test_api:.* there, None now"):
        train(options | {"resume": "auto"}, rows=make_rows(12))


def test_an_evaluation_needs_no_training_columns_and_its_controls_no_rows(options, workspace):
    """The untrained control has the norms of the training, whatever rows are asked."""
    train(options, rows=make_rows(12))
    options["evaluation"]["systems"] = ["untrained"]
    rows = make_rows(6, first=30)
    plain = [{"question": r["question"], "answer": r["answer"]} for r in rows]
    few = evaluate(options, test_rows=plain[:3])
    texts = []
    for asked in (plain[:3], plain):
        evaluate(options, test_rows=asked)
        lines = (workspace / "run" / "eval" / "answers.jsonl").read_text().splitlines()
        texts.append([json.loads(li) for li in lines if json.loads(li)["line"] <= 3])
    assert [t["text"] for t in texts[0]] == [t["text"] for t in texts[1]]
    assert len(few) == 4


def test_inner_links_of_other_prompts_are_not_taken(options, workspace, capsys):
    train(options, rows=make_rows(12))
    other = workspace / "others"
    other.mkdir()
    for path in (workspace / "prompts").iterdir():
        (other / path.name).write_text(path.read_text().replace("note", "so note"))
    data = options["data"] | {"prompts": str(other)}
    train(options | {"data": data, "run_dir": str(workspace / "second")}, rows=make_rows(12))
    assert "inner links from the same options" not in capsys.readouterr().out


def test_an_unknown_agent_of_load_is_named(trained, workspace):
    with pytest.raises(ConfigError, match="plannr.*Did you mean 'planner'"):
        load(workspace / "run", agents={"plannr": "x"})
