"""``evaluation.retry_tokens``: an answer in which the grader finds none goes on, once."""

import json

import pytest
import torch
from tiny import make_agent, make_family, make_rows

from rmas_train.__main__ import main
from rmas_train.agents.prompts import tokenise
from rmas_train.engine.answer import generate
from rmas_train.engine.inputs import embed_ids
from rmas_train.engine.kv_cache import KVCache
from rmas_train.support.output import stop_log
from rmas_train.systems.base import answers_of, open_sessions
from rmas_train.tools.calls import SecondTry, Toolbox

BEGINS = " answer go"


def asked(agent, rows, box, most):
    ids = [tokenise(agent, [row["question"]])[0] for row in rows]
    sessions = open_sessions(box, rows)
    texts = generate(agent, embed_ids(agent, ids), None, most, sessions)
    return answers_of(texts, 0, sessions, [0] * len(texts)), ids


def box(unreadable, tokens=4):
    """The grader finds an answer in every text, but for these questions'."""
    calls = []

    def read(row, text):
        calls.append((row["question"], text))
        return None if row["question"] in unreadable else text

    return Toolbox(second_try=SecondTry(BEGINS, tokens, read)), calls


def naive(agent, ids, most, more):
    """Token by token, each time the whole text: what it writes, and what it writes after more."""

    def go_on(ids, most):
        written = []
        while len(written) < most and not (written and written[-1] in agent.end_ids):
            with torch.no_grad():
                state_D = KVCache(agent).read(embed_ids(agent, [[*ids, *written]]))[0, -1]
                written.append(int(agent.logits(state_D).argmax()))
        return written

    first = go_on(ids, most)
    kept = first[:-1] if first[-1] in agent.end_ids else first
    begins = tokenise(agent, [BEGINS], plain=True)[0]
    second = go_on([*ids, *kept, *begins], more)
    decode = lambda ids: agent.tokenizer.decode(ids, skip_special_tokens=True)  # noqa: E731
    return decode(first) + BEGINS + decode(second), len(first) + len(second)


@pytest.mark.parametrize("family", ["llama", "qwen3_5"])
def test_it_is_what_is_written_after_the_text_and_the_beginning(family):
    agent, rows = make_family(family, "solver"), make_rows(5)
    chosen = {rows[1]["question"], rows[3]["question"]}
    found, ids = asked(agent, rows, box(chosen)[0], 6)
    plain = generate(agent, embed_ids(agent, ids), None, 6)
    for i, row in enumerate(rows):
        if row["question"] in chosen:
            assert (found[i].text, found[i].tokens) == naive(agent, ids[i], 6, 4)
        else:
            assert (found[i].text, found[i].tokens) == (plain[i].text, plain[i].tokens)
        assert found[i].retried == (row["question"] in chosen)


def test_the_grader_is_asked_once_and_with_the_whole_text():
    agent, rows = make_agent("solver"), make_rows(3)
    everything, calls = box({row["question"] for row in rows})
    found, ids = asked(agent, rows, everything, 5)
    assert len(calls) == len(rows), "after its second try a text is not read again"
    plain = generate(agent, embed_ids(agent, ids), None, 5)
    assert {text for _, text in calls} == {text.text for text in plain}
    assert all(f.text.startswith(p.text + BEGINS) for f, p in zip(found, plain, strict=True))


def test_without_tools_no_call_is_seen():
    session = box(set())[0].open({})
    assert not session.is_due("<python>1</python>")


def test_results_count_it(overrides, workspace, capsys):
    typed = [*overrides, "evaluation.systems=[text,decoder_alone]", "rounds=1"]
    # The gold answer is one word; a text of several needs the words before it.
    pattern = r"data.answer_pattern='(?P<answer>^ ?\w+$|(?<=answer is )\w+)'"
    again = ["evaluation.retry_tokens=3", "evaluation.retry_text=' answer is '"]
    assert main([*typed, pattern, *again]) == 0
    stop_log()
    rows = json.loads((workspace / "run/eval/results.json").read_text())["rows"]
    assert {row["system"] for row in rows} == {"latent", "text", "decoder_alone"}
    assert all(0 < row["retried"] <= row["n"] for row in rows), "every system alike"
    lines = (workspace / "run/eval/answers.jsonl").read_text().splitlines()
    answers = [json.loads(line) for line in lines]
    assert all((" answer is " in a["text"]) == a.get("retried", False) for a in answers)
    assert main([*typed, "evaluation.decoding=static", *again]) == 2
    assert "cannot go on after its end" in capsys.readouterr().err
