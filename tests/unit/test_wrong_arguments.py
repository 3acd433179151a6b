"""Wrong arguments of the Python API: one line that names the argument, no traceback of ours."""

import pytest
import torch
from tiny import TINY, make_agent, make_links, make_rows, make_team

import rmas_train
from rmas_train.channels import LatentChannel
from rmas_train.config import Config
from rmas_train.engine.inputs import LatentMessage, TextMessage
from rmas_train.errors import ConfigError, DataError, UserError
from rmas_train.evaluation.benchmark import RowsBenchmark
from rmas_train.evaluation.evaluate import Trial, run_trial
from rmas_train.evaluation.graders import PatternGrader
from rmas_train.evaluation.parts import Part
from rmas_train.recursion import Recursion, Sent
from rmas_train.systems.base import SystemEntry
from rmas_train.systems.latent import System
from rmas_train.systems.looks import Look
from rmas_train.systems.restore import check_given


@pytest.fixture(scope="module")
def system():
    team = make_team({name: make_agent(name) for name in TINY})
    return System(team, make_links(team), rounds=2, latent_length=3, max_new_tokens=2)


TWO = ["red", "one two"]


def changing(change):
    """An intervention that changes a message's vectors."""
    return lambda message, edge, round_: message.with_tensors([change(message.vectors)])


ASKED = [
    (lambda s: s.answer(TWO, batch_size=-3), "batch_size=-3: give a whole number, 1 or more"),
    (lambda s: s.answer(TWO, batch_size=0), "batch_size=0"),
    (lambda s: s.answer([], batch_size=-3), "batch_size=-3"),
    (lambda s: s.answer(TWO, batch_size=1.5), "batch_size=1.5"),
    (lambda s: s.answer(TWO, batch_size=None), "batch_size=None"),
    (lambda s: s.answer(TWO, batch_size=True), "batch_size=True"),
    (lambda s: s.answer(TWO, rounds=True), "rounds=True"),
    (lambda s: s.answer({}), "questions is one row"),
    (lambda s: s.answer(""), "questions is one text"),
    (lambda s: s.answer(None), "questions is None"),
    (lambda s: s.answer(3), "questions is 3"),
    (lambda s: s.answer([{"question": 3}]), "question 0: column 'question' is 3, a number"),
    (lambda s: s.answer([{"question": None}]), "question 0: column 'question' is null"),
    (lambda s: s.messages([]), "there are no questions"),
    (lambda s: s.messages({"question": "red"}), "questions is one row"),
    (lambda s: list(s.unroll(TWO, batch_size=-1)), "batch_size=-1"),
    (lambda s: list(s.unroll(TWO, batch_size=0)), "batch_size=0"),
    (lambda s: list(s.unroll(TWO, answer_rounds=3)), "answer_rounds=3: give a list"),
    (lambda s: s.answer(TWO, interventions={"a": print}), "interventions={.*give a list"),
    (lambda s: s.answer(TWO, interventions=[3]), "intervention 3: .* message, edge and round"),
    (lambda s: s.answer(TWO, interventions=[lambda m: m]), "too many positional arguments"),
]


@pytest.mark.parametrize(("ask", "message"), ASKED)
def test_questions_and_options(system, ask, message):
    with pytest.raises((ConfigError, DataError), match=message):
        ask(system)


def test_no_questions_have_no_answers_and_any_iterable_will_do(system):
    assert system.answer([]) == system.answer(()) == []
    assert system.answer(q for q in TWO) == system.answer(tuple(TWO)) == system.answer(TWO)


CHANGED = [
    (changing(lambda x: x[:, :1]), r"from \(2, 3, 32\) to \(2, 1, 32\); keep it, and"),
    (changing(lambda x: x[:, :0]), r"to \(2, 0, 32\)"),
    (changing(lambda x: x[:1]), r"to \(1, 3, 32\)"),
    (changing(lambda x: torch.cat([x, x])), r"to \(4, 3, 32\)"),
    (changing(lambda x: x[..., :3]), r"to \(2, 3, 3\)"),
    (changing(lambda x: x[:, 0]), r"to \(2, 32\)"),
    (changing(lambda x: x.long()), "vectors of torch.int64"),
    (changing(lambda x: x.numpy()), "vectors of ndarray"),
    (lambda m, e, r: m.rows([0]), r"to \(1, 3, 32\)"),
    (lambda m, e, r: LatentMessage(m.vectors, [1]), r"counts=\[1\]; give one for each of 2 rows"),
    (lambda m, e, r: LatentMessage(m.vectors, [1, 9]), "from 0 to 3"),
    (lambda m, e, r: LatentMessage(m.vectors, [-1, 2]), "from 0 to 3"),
    (lambda m, e, r: TextMessage(["red"]), "give a text for each of 2 rows"),
    (lambda m, e, r: m.vectors, "gave Tensor; give a Message"),
]


@pytest.mark.parametrize(("change", "message"), CHANGED)
def test_an_intervention_that_gives_no_message_of_this_shape(system, change, message):
    where = "^intervention <lambda> for planner-critic in round 1 .*"
    with pytest.raises(ConfigError, match=where + message):
        system.answer(TWO, interventions=[change])


def test_what_interventions_may_do(system):
    """Zeros, fewer counted vectors, another dtype, and text."""
    for change in (
        changing(lambda x: x * 0),
        changing(lambda x: x.double()),
        lambda m, e, r: LatentMessage(m.vectors, [1, 3]),
        lambda m, e, r: TextMessage(["red", "two"]),
    ):
        assert len(system.answer(TWO, interventions=[change])) == 2


def test_a_channel_that_sends_nothing_over_an_edge(system):
    class Deaf(LatentChannel):
        def send(self, call):
            return Sent({})

    recursion = Recursion(system.team, Deaf(system.links, 2))
    with pytest.raises(ConfigError, match="channel Deaf sent nothing over planner-critic in round"):
        list(recursion.unroll([{"question": "red"}], 1))


def test_a_system_that_answers_other_rows(system):
    class Short:
        latent_length, uses_rounds = 0, True

        def answer(self, rows, rounds):
            return system.answer([row["question"] for row in rows][1:])

    benchmark = RowsBenchmark("own", make_rows(3), PatternGrader(Config()))
    part = Part(benchmark, 0, benchmark.rows, (1,))
    trial = Trial(part, SystemEntry("short", None, Short, Look("short")), Short(), (1,))
    with pytest.raises(ConfigError, match="systems=short: gave 2 answers for 3 rows"):
        run_trial(trial, range(3))


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: rmas_train.load(3), "folder=3: give a links folder"),
        (lambda: rmas_train.load(None), "folder=None"),
        (lambda: rmas_train.load("x", device="gpu"), "device='gpu': give cpu, cuda"),
        (lambda: rmas_train.load("x", device="cuda:99"), "device='cuda:99': PyTorch sees"),
        (lambda: rmas_train.config_from(None), "config=None: give a YAML file"),
        (lambda: rmas_train.config_from(3), "config=3"),
        (lambda: rmas_train.config_from([3]), r"config=\[3\]"),
    ],
)
def test_where_to_load_from(act, message):
    with pytest.raises(UserError, match=message):
        act()


def test_agents_in_another_place(system):
    class Card:
        agents = dict.fromkeys(TINY)

    for agents, message in (
        ({"plannr": "x"}, "agents={'plannr': ...}: the links have no agent 'plannr'.*'planner'"),
        (["planner"], r"agents=\['planner'\]: give a dict"),
        ("x", "agents='x': give a dict"),
        ({"planner": 3}, "agents={'planner': 3}: give a folder"),
    ):
        with pytest.raises(ConfigError, match=f"^{message}"):
            check_given(agents, Card)
