"""TextGrad: every question by itself and in batches, a model here and one behind an endpoint."""

import logging
import sys
import threading

import pytest
from chat_server import ChatServer
from tiny import make_links, make_rows

from rmas_train.config import Config, EvaluationConfig
from rmas_train.errors import ConfigError, DataError
from rmas_train.registry import SYSTEMS
from rmas_train.systems.base import SAMPLE, Ingredients, NotApplicable
from rmas_train.systems.in_step import hold
from rmas_train.systems.text_gradients import package

PROMPTS = {"single": {"user": "<<question>> go"}, "textgrad": {"user": "judge <<question>> it"}}


def given(team, prompts=PROMPTS, **options):
    evaluation = EvaluationConfig(max_new_tokens=4, textgrad_tokens=5, **options)
    links = {"trained": make_links(team).requires_grad_(False)}
    return Ingredients(Config(evaluation=evaluation), team, links, make_rows(4), prompts=prompts)


def built(ingredients):
    entries = SYSTEMS.get("textgrad")(ingredients.team)
    return {entry.control: entry.build(ingredients) for entry in entries}


@pytest.fixture(scope="module")
def textgrad():
    return package()


@pytest.mark.slow
@pytest.mark.parametrize(("rounds", "heat"), [(1, 0.0), (2, 0.0), (2, 3.0)])
def test_in_a_batch_as_the_package_does_with_one_question(team, textgrad, rounds, heat):
    """Naive: one question, one request at a time."""
    systems = built(given(team, temperature=heat))
    assert set(systems) == set(team.agents)
    system = systems["solver"]
    rows = [row | {SAMPLE: 1} for row in make_rows(4)]
    for row, found in zip(rows, system.answer(rows, rounds), strict=True):
        (first,) = system.agent.answer([row])
        spent = [first]

        class Naive(textgrad.EngineLM):
            def __call__(self, text, system_prompt=None, spent=spent):
                request = {"system": system_prompt, "text": text, SAMPLE: 1}
                spent += system.model([request])
                return spent[-1].text

            generate = __call__

        variable = textgrad.Variable(
            first.text, requires_grad=True, role_description="answer to the question"
        )
        loss = textgrad.TextLoss(f"judge {row['question']} it", Naive())
        optimizer = textgrad.TextualGradientDescent(parameters=[variable], engine=Naive())
        for _ in range(rounds):
            optimizer.zero_grad()
            loss(variable).backward(Naive())
            with pytest.raises(IndexError):  # this model writes no tags
                optimizer.step()
        assert found.text == first.text
        assert len(spent) == 1 + 3 * rounds
        assert found.tokens == sum(one.tokens for one in spent)
        assert found.prompt_tokens == sum(one.prompt_tokens for one in spent)
        assert found.latent_steps == 0


def reply(messages):
    """A critic that reads what it is asked."""
    system, text = (message["content"] for message in messages)
    if system.startswith("judge"):
        return f"{text} is wrong"
    if "gradient (feedback) engine" in system:
        return "more of it"
    assert "<FEEDBACK>more of it</FEEDBACK>" in text
    before = text.split("<VARIABLE> ")[1].split(" </VARIABLE>")[0]
    return f"<IMPROVED_VARIABLE>{before} more</IMPROVED_VARIABLE>"


@pytest.mark.slow
@pytest.mark.usefixtures("textgrad")
def test_a_model_behind_an_endpoint_writes_the_answer_anew(team, monkeypatch):
    monkeypatch.setenv("TEXTGRAD_API_KEY", "made-up")
    with ChatServer(reply).running() as server:
        options = {"textgrad_url": server.url, "textgrad_model": "scholar"}
        system = built(given(team, **options))["planner"]
        rows = make_rows(3)
        first = system.agent.answer(rows)
        found = system.answer(rows, 2)
        assert [a.text for a in found] == [f"{a.text} more more" for a in first]
        assert len(server.asked) == 3 * 3 * 2
        assert {body["max_tokens"] for body in server.asked} == {5}
        assert server.headers[0]["authorization"] == "Bearer made-up"
        judged = {body["messages"][0]["content"] for body in server.asked}
        assert {f"judge {row['question']} it" for row in rows} <= judged
    for before, after in zip(first, found, strict=True):
        assert after.tokens > before.tokens and after.prompt_tokens > before.prompt_tokens


@pytest.mark.slow
@pytest.mark.usefixtures("textgrad")
def test_what_is_cut_or_too_long_does_not_end_the_evaluation(team):
    def cut(messages):
        return {"message": {"content": reply(messages)}, "finish_reason": "length"}

    rows = make_rows(2)
    with ChatServer(cut).running() as server:
        options = {"textgrad_url": server.url, "textgrad_model": "scholar"}
        system = built(given(team, **options))["planner"]
        first = system.agent.answer(rows)
        assert [a.text for a in system.answer(rows, 1)] == [f"{a.text} more" for a in first]
    system = built(given(team))["planner"]
    long = {"system": "a", "text": "go " * 10**5, SAMPLE: 0}
    short = {"system": "a", "text": "go", SAMPLE: 0}
    replies = system.model([long, short])
    assert (replies[0].text, replies[0].tokens) == ("", 0)
    assert replies[1] == system.model([short])[0]


@pytest.mark.slow
@pytest.mark.usefixtures("textgrad")
def test_an_endpoint_that_fails_is_told(team):
    with ChatServer(lambda m: {"status": 404, "error": {"message": "none"}}).running() as server:
        options = {"textgrad_url": server.url, "textgrad_model": "scholar"}
        with pytest.raises(DataError, match=r"evaluation.textgrad_url=http.*textgrad_model"):
            built(given(team, **options))["planner"].answer(make_rows(3), 1)
    with pytest.raises(ConfigError, match=r"give evaluation.textgrad_model"):
        built(given(team, textgrad_url="http://localhost:1/v1"))
    with pytest.raises(ConfigError, match=r"evaluation.textgrad_url=http://example.org/v1: the k"):
        given(team, textgrad_url="http://example.org/v1")
    with pytest.raises(ConfigError, match=r"evaluation.textgrad_key_variable=HOME: give the name"):
        given(team, textgrad_key_variable="HOME")


@pytest.mark.slow
@pytest.mark.usefixtures("textgrad")
def test_the_package_writes_no_log(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    logger = logging.getLogger("textgrad")
    assert not logger.handlers and not logger.isEnabledFor(logging.CRITICAL)
    assert not list(tmp_path.iterdir())


def test_what_it_needs(team, monkeypatch):
    for prompts, missing in (({}, "single.yaml"), ({"single": PROMPTS["single"]}, "textgrad.yaml")):
        for system in built(given(team, prompts=prompts)).values():
            assert isinstance(system, NotApplicable) and missing in system.why
    monkeypatch.setitem(sys.modules, "textgrad", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for system in built(given(team)).values():
        assert "pip install 'rmas_train[textgrad]'" in system.why


def test_conversations_ask_together():
    """Each asks as often as its number; a batch holds all that are not over, in their order."""
    batches = []

    def answer(requests):
        batches.append(list(requests))
        return [request * 10 for request in requests]

    def talk(number):
        return lambda ask: [ask(number) for _ in range(number)]

    assert hold([talk(n) for n in range(4)], answer) == [[], [10], [20, 20], [30, 30, 30]]
    assert batches == [[1, 2, 3], [2, 3], [3]]
    assert hold([], answer) == []


@pytest.mark.parametrize("where", ["model", "conversation"])
def test_a_fault_ends_all_conversations(where):
    def answer(requests):
        if where == "model":
            raise DataError("it failed")
        return requests

    def talk(number):
        def run(ask):
            for _ in range(100):
                ask(number)
                if where == "conversation" and number == 2:
                    raise DataError("it failed")

        return run

    before = set(threading.enumerate())  # other libraries of this process keep threads
    with pytest.raises(DataError, match="it failed"):
        hold([talk(n) for n in range(4)], answer)
    assert set(threading.enumerate()) <= before
