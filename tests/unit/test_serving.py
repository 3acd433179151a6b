"""A system asked by other programs: options, requests, counts and scores; no server yet."""

import sys
from dataclasses import replace

import pytest
import torch
from tiny import WORDS, make_links

from rmas_train.__main__ import main
from rmas_train.agents.prompts import Prompt, tokenise_whole
from rmas_train.command.serve import read_pairs
from rmas_train.engine.decoding import Decoding
from rmas_train.engine.inputs import embed_prompts
from rmas_train.errors import ConfigError, DataError
from rmas_train.recursion import last_call
from rmas_train.serving.answerer import Answerer, TooLongError, model_name, model_names
from rmas_train.serving.options import read_options
from rmas_train.serving.questions import cut, question_of
from rmas_train.serving.request_bodies import RequestError, read_request
from rmas_train.serving.response_bodies import completion, error_body, events
from rmas_train.serving.scoring import score_endings
from rmas_train.systems.base import SAMPLE
from rmas_train.systems.latent import System

QUESTIONS = ["one two", "red green blue six", "go"]
ROWS = [{"question": q} for q in QUESTIONS]


@pytest.fixture
def system(team):
    return System(team, make_links(team), rounds=2, latent_length=3, max_new_tokens=5)


@pytest.fixture
def answerer(system):
    return Answerer(system, "tiny", "f" * 64)


@pytest.fixture
def with_notes(team, answerer):
    """The same, with a column that only the solver's prompt names."""
    solver = team.agents["solver"]
    texts = {"user": "<<question>> note <<notes>> <<message:critic>> go"}
    team.prompts["solver"] = Prompt(solver, texts)
    return Answerer(answerer.system, "tiny", "f" * 64)


def chat(text="one two", **more):
    return {"model": "tiny", "messages": [{"role": "user", "content": text}]} | more


def test_answers_are_those_of_the_system(system, answerer):
    expected = system.answer(QUESTIONS)
    replies = answerer.answer(ROWS)
    assert [(r.text, r.tokens, r.latent_steps) for r in replies] == [
        (a.text, a.tokens, a.latent_steps) for a in expected
    ]
    null = answerer.answer(ROWS, "null")
    assert [r.text for r in null] == [a.text for a in system.answer(QUESTIONS, latent_length=0)]
    alone = answerer.answer(ROWS, "decoder_alone", max_tokens=2)
    assert all(r.latent_steps == 0 for r in [*null, *alone])
    assert all(r.tokens <= 2 for r in alone)
    assert system.max_new_tokens == 5  # a request changes nothing for the next one
    assert all(r.is_full == (r.tokens == 5) for r in replies)


@pytest.mark.parametrize("rounds", [1, 2, 3])
@pytest.mark.parametrize("control", [None, "null", "decoder_alone"])
def test_what_is_checked_is_what_every_call_reads(system, answerer, rounds, control):
    """Lengths are known before anything runs; messages and answers take their room beside."""
    system.rounds = rounds
    length = 0 if control == "null" else 3
    for row, reply in zip(ROWS, answerer.answer(ROWS, control), strict=True):
        readings = answerer._readings(row, control, 5)
        rolls = 0 if control == "decoder_alone" else length * (len(readings) - 1)
        known = sum(len(r.prompt.ids) + r.beside for r in readings) - rolls - 5
        assert reply.prompt_tokens == known


def test_an_answer_is_cut_at_the_first_stop(answerer):
    (whole,) = answerer.answer(ROWS[:1])
    stops = [whole.text[-1:], whole.text[1:3], "never there"]
    (reply,) = answerer.answer(ROWS[:1], stops=stops)
    assert len(whole.text) > 2 and reply.tokens == whole.tokens
    first = min(whole.text.index(stop) for stop in stops[:2])
    assert reply.text == whole.text[:first]
    assert cut("a b", []) == "a b" and cut("a\n\nb", ["\n\n", "b"]) == "a"


@pytest.mark.parametrize("control", [None, "null", "decoder_alone"])
def test_scores_are_the_loss_of_one_row_at_a_time(system, answerer, control):
    rows = [row for row in ROWS for _ in range(3)]
    texts = [" two", " red green seven", "nine"] * 3
    found = answerer.score(rows, texts, control, batch_size=4)
    decoder = system.team.agents["solver"]
    length = 0 if control == "null" else 3
    for row, text, score in zip(rows, texts, found, strict=True):
        (ids,) = tokenise_whole(decoder, [text.strip()], ended=False)
        if control == "decoder_alone":
            (prompt,) = system.team.prompts["solver"].encode([row], 1, first=True)
            whole = torch.tensor([prompt.ids + ids])
            logits = decoder.model(whole).logits[0, -len(ids) - 1 : -1]
            loss = -logits.log_softmax(-1)[range(len(ids)), ids].sum()
        else:
            with torch.no_grad():
                loss = last_call(system.unroll([row], 2, length)).answer_loss([ids])
        assert score.log_probability == pytest.approx(-float(loss), abs=2e-4)


def test_the_most_probable_tokens_are_greedy_and_no_others_are(team):
    decoder, prompt = team.agents["solver"], team.prompts["solver"]
    prompts = prompt.encode(ROWS[:2], 1, first=True)
    endings = []
    for one, count in zip(prompts, (4, 2), strict=True):
        ids = list(one.ids)
        for _ in range(count):
            ids.append(int(decoder.model(torch.tensor([ids])).logits[0, -1].argmax()))
        endings.append(ids[len(one.ids) :])
    changed = [endings[0], [*endings[1][:-1], (endings[1][-1] + 1) % decoder.rows]]
    for own, expected in ((endings, [True, True]), (changed, [True, False])):
        batch = embed_prompts(decoder, prompts, {}, own)
        found = score_endings(decoder, batch, None, own)
        assert [score.is_greedy for score in found] == expected


def test_a_continuation_without_text_is_refused(answerer):
    with pytest.raises(DataError, match="no text to score"):
        answerer.score(ROWS[:1], ["  "])


def test_a_question_that_is_too_long_names_the_agent(answerer):
    long = {"question": " ".join(WORDS.split() * 20)}
    with pytest.raises(TooLongError, match="agent planner reads 256 positions at most"):
        answerer.answer([long])
    with pytest.raises(TooLongError, match="agent solver reads 256 .* ask for fewer tokens"):
        answerer.answer(ROWS, max_tokens=256)
    status, body = error_body(TooLongError("x"))
    assert status == 400 and body["error"]["code"] == "context_length_exceeded"


def test_columns_that_prompts_name(with_notes):
    with pytest.raises(DataError, match="no column notes, which the prompts name"):
        with_notes.answer(ROWS)
    asked = read_request(chat(columns={"notes": "ten"}), True, with_notes)
    assert asked.rows == [{"question": "one two", SAMPLE: 0, "notes": "ten"}]
    assert with_notes.answer(asked.rows)
    for columns in ({"note": "x"}, {"question": "x"}, {"notes": 3}, ["notes"], "x"):
        with pytest.raises(RequestError) as found:
            read_request(chat(columns=columns), True, with_notes)
        assert found.value.param == "columns"


@pytest.mark.parametrize(
    ("body", "param", "needle"),
    [
        ([], None, "the body is []"),
        (None, None, "the body is None"),
        ({}, "model", "model is None"),
        (chat() | {"model": "gpt-9"}, "model", "Known: "),
        (chat() | {"model": "tiny:nul"}, "model", "Did you mean 'tiny:null'?"),
        (chat() | {"messages": []}, "messages", "give a list with one user message"),
        (chat() | {"messages": "hi"}, "messages", "one user message"),
        (chat() | {"messages": [3]}, "messages", "messages[0] is 3"),
        (chat() | {"messages": [{"role": "user"}]}, "messages", "content is None"),
        (chat(" "), "messages", "give the question as a text"),
        (chat([{"type": "image_url"}]), "messages", "agents read text only"),
        (chat([{"type": "text", "text": 3}]), "messages", "agents read text only"),
        (chat(temperature=-1), "temperature", "temperature=-1: give a number from 0 to 100"),
        (chat(temperature="0"), "temperature", "temperature='0': give a number"),
        (chat(temperature=True), "temperature", "temperature=True: give a number"),
        (chat(temperature=1, top_p=0), "top_p", "above 0, and at most 1"),
        (chat(temperature=1, top_p=1.5), "top_p", "top_p=1.5: give a number from 0 to 1"),
        (chat(temperature=1, top_k=0), "top_k", "top_k=0: give 1 or more"),
        (chat(temperature=1, top_k=1.5), "top_k", "top_k=1.5: give a whole number"),
        (chat(temperature=1, seed="a"), "seed", "give a whole number"),
        (chat(n=0), "n", "n=0: give a whole number from 1 to 128"),
        (chat(n=2.0), "n", "n is 2.0"),
        (chat(max_tokens=0), "max_tokens", "from 1 to"),
        (chat(max_tokens="5"), "max_tokens", "give a whole number"),
        (chat(max_tokens=1.5), "max_tokens", "give a whole number"),
        (chat(max_completion_tokens=True), "max_completion_tokens", "whole number"),
        (chat(stop=[""]), "stop", "give a text"),
        (chat(stop={"a": 1}), "stop", "give a text"),
        (chat(stream="yes"), "stream", "give true or false"),
        (chat(stream_options=[1]), "stream_options", "named values"),
        (chat(prompt="x"), "prompt", "of the other endpoint"),
        (chat(tools=[{"type": "function"}]), "tools", "is not offered"),
        (chat(logit_bias={"1": 2}), "logit_bias", "is not offered"),
        (chat(temprature=0), "temprature", "Did you mean 'temperature'?"),
    ],
)
def test_requests_that_are_refused(answerer, body, param, needle):
    with pytest.raises(RequestError) as found:
        read_request(body, True, answerer)
    assert needle in str(found.value) and found.value.param == param
    status, answer = error_body(found.value)
    assert 400 <= status < 500 and "\n" not in answer["error"]["message"]


def test_requests_that_are_read(answerer):
    more = {"user": "me", "seed": 3, "temperature": 0.0, "top_p": None, "n": 1, "stop": "\n"}
    more |= {"max_tokens": 3, "max_completion_tokens": 2, "tools": []}
    asked = read_request(chat([{"type": "text", "text": "one"}], **more), True, answerer)
    assert asked.rows == [{"question": "one", SAMPLE: 0}] and asked.stops == ["\n"]
    assert asked.max_tokens == 2 and asked.decoding == Decoding()
    body = {"model": "rmas:null", "prompt": QUESTIONS, "stream": True}
    asked = read_request(body | {"stream_options": {"include_usage": True}}, False, answerer)
    assert asked.control == "null" and asked.with_usage
    assert asked.rows == [row | {SAMPLE: 0} for row in ROWS]
    replies = answerer.answer(asked.rows, asked.control)
    assert completion(asked, replies, answerer)["usage"]["latent_steps"] == 0
    assert len(list(events(asked, replies, answerer))) == len(QUESTIONS) + 2
    for prompt in ("", [], ["one", 3], [1, 2], {"a": "b"}, None):
        with pytest.raises(RequestError) as found:
            read_request({"model": "tiny", "prompt": prompt}, False, answerer)
        assert found.value.param == "prompt"


@pytest.mark.parametrize("control", [None, "decoder_alone"])
def test_several_texts_of_a_question_are_drawn_as_an_evaluation_draws(answerer, control):
    """Each by itself, from the seed, the row and its number."""
    body = {"model": "tiny", "prompt": QUESTIONS, "n": 3, "temperature": 5, "seed": 7, "top_p": 0.9}
    asked = read_request(body, False, answerer)
    assert asked.decoding == Decoding(temperature=5.0, top_p=0.9, seed=7)
    found = answerer.answer(asked.rows, control, 4, decoding=asked.decoding)
    expected = []
    for question in QUESTIONS:
        for i in range(3):
            row = {"question": question, SAMPLE: i}
            expected += answerer.answer([row], control, 4, decoding=asked.decoding)
    assert found == expected and len({reply.text for reply in found}) > 3
    system = replace(answerer.system, decoding=asked.decoding, max_new_tokens=4)
    if control is None:
        assert [a.text for a in system.answer(asked.rows)] == [reply.text for reply in found]
    greedy = answerer.answer(asked.rows, control, 4)
    assert greedy[0] == greedy[1] != found[0]


def test_without_a_seed_every_request_draws_anew(answerer):
    seeds = {
        read_request(chat("one", temperature=1), True, answerer).decoding.seed for _ in range(5)
    }
    assert len(seeds) == 5


@pytest.mark.parametrize(
    ("roles", "needle"),
    [
        (["system", "user"], "messages[0] has role 'system'"),
        (["user", "assistant", "user"], "messages has 3 messages"),
        (["assistant"], "messages[0] has role 'assistant'"),
        ([None], "messages[0] has role None"),
    ],
)
def test_a_conversation_is_not_cut_down_silently(roles, needle):
    with pytest.raises(DataError) as found:
        question_of([{"role": role, "content": "x"} for role in roles])
    assert needle in str(found.value)


def test_options_of_a_system():
    options = read_options({"run": "outputs/x", "rounds": "2", "agents.planner": "here"})
    assert (options.rounds, options.agents, options.device) == (2, {"planner": "here"}, "auto")
    for given, needle in (
        ({}, "neither run nor links"),
        ({"run": "a", "links": "b"}, "run=a and links=b"),
        ({"run": "a", "round": 2}, "Did you mean 'rounds'?"),
        ({"run": "a", "rounds": 0}, "rounds=0"),
        ({"run": "a", "rounds": "2.5"}, "rounds='2.5'"),
        ({"run": "a", "rounds": True}, "rounds=True"),
        ({"run": ""}, "run=''"),
        ({"run": ["a"]}, "give a text"),
    ):
        with pytest.raises(ConfigError) as found:
            read_options(given)
        assert needle in str(found.value)


def test_names_of_models(tmp_path, answerer):
    for inside in ("", "outer", "outer/links"):
        assert model_name(tmp_path / "relay" / inside) == "relay"
    assert list(model_names(answerer))[:3] == ["tiny", "tiny:null", "tiny:decoder_alone"]
    assert model_names(answerer)["rmas"] is None


@pytest.mark.parametrize(
    ("typed", "needle"),
    [
        ([], "neither run nor links is given"),
        (["outputs/relay"], "outputs/relay: options are key=value"),
        (["--port=3"], "--port=3: options are key=value"),
        (["run=a", "run=b"], "run is given twice"),
        (["run=a", "port=70000"], "port='70000'"),
        (["run=a", "colour=red"], "Unknown option 'colour'"),
    ],
)
def test_what_is_typed_wrongly_after_serve(capsys, typed, needle):
    assert main(["serve", *typed]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and needle in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "module", "extra"),
    [("serve", "uvicorn", "serve"), ("lm-eval", "lm_eval", "lm-eval")],
)
def test_an_extra_that_is_not_installed(capsys, monkeypatch, command, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    if command == "serve":
        monkeypatch.setitem(sys.modules, "starlette", None)
    assert main([command, "run=a"]) == 2
    assert f"pip install 'rmas_train[{extra}]'" in capsys.readouterr().err


def test_help_of_serve(capsys):
    assert main(["serve", "--help"]) == 0
    text = capsys.readouterr().out
    assert "host=127.0.0.1" in text and max(map(len, text.splitlines())) <= 80
    assert read_pairs(["run=a=b", "port=0"]) == {"run": "a=b", "port": "0"}
