"""Drawn tokens: the distribution, its cuts, and seeds that depend on the question alone."""

import math
from collections import Counter
from itertools import combinations

import pytest
import torch
from tiny import make_links, make_rows
from transformers import TopKLogitsWarper, TopPLogitsWarper

from rmas_train.engine.decoding import GREEDY, Decoding, draw
from rmas_train.engine.inputs import embed_prompts
from rmas_train.engine.kv_cache import new_cache
from rmas_train.evaluation.samples import majority, pass_at, sampled
from rmas_train.systems.alone import Alone
from rmas_train.systems.base import SAMPLE
from rmas_train.systems.latent import System
from rmas_train.systems.text import TextSystem

WARM = Decoding(temperature=1.5, seed=3)
CUTS = [(None, 1.0), (5, 1.0), (None, 0.7), (6, 0.6), (1, 1.0), (None, 1e-9), (99, 0.999)]


def naive_draw(logits, number, temperature, top_k, top_p):
    """One token by the definition, in Python's own floats."""
    tokens = sorted(range(len(logits)), key=lambda i: (-logits[i], i))[:top_k]
    weights = [math.exp((logits[i] - max(logits)) / temperature) for i in tokens]
    total, kept, mass = sum(weights), [], 0.0
    for token, weight in zip(tokens, weights, strict=True):
        if mass / total >= top_p:
            break
        kept.append((token, weight))
        mass += weight
    reached = 0.0
    for token, weight in kept:
        reached += weight
        if reached > number * mass:
            return token
    return kept[-1][0]


@pytest.mark.parametrize(("top_k", "top_p"), CUTS)
def test_a_draw_is_the_naive_one(top_k, top_p):
    torch.manual_seed(0)
    logits_BV = torch.randn(200, 17, dtype=torch.float64) * 3
    numbers_B = torch.rand(200, dtype=torch.float64)
    found = draw(logits_BV, numbers_B, Decoding("plain", 0.8, top_k, top_p)).tolist()
    wanted = [
        naive_draw(logits, number, 0.8, top_k, top_p)
        for logits, number in zip(logits_BV.tolist(), numbers_B.tolist(), strict=True)
    ]
    assert found == wanted


@pytest.mark.parametrize(("top_k", "top_p"), CUTS)
def test_the_distribution_is_that_of_the_library(top_k, top_p):
    """At evenly spread quantiles each token comes up as often as it is likely."""
    torch.manual_seed(1)
    scores_1V = torch.randn(1, 12) * 2 / 0.8
    for warper in [top_k and TopKLogitsWarper(top_k), top_p < 1 and TopPLogitsWarper(top_p)]:
        scores_1V = warper(None, scores_1V) if warper else scores_1V
    count = 20_000
    numbers = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    torch.manual_seed(1)
    logits = (torch.randn(1, 12) * 2).expand(count, -1)
    drawn = draw(logits, numbers, Decoding("plain", 0.8, top_k, top_p))
    found_V = torch.bincount(drawn, minlength=12) / count
    torch.testing.assert_close(found_V, scores_1V.softmax(-1)[0], atol=2e-4, rtol=0)


def test_the_ends_of_the_numbers_draw_a_kept_token():
    logits_BV = torch.randn(3, 9)
    for number in (0.0, 1 - 2**-53):
        for top_k, top_p in CUTS:
            numbers_B = torch.full((3,), number, dtype=torch.float64)
            drawn = draw(logits_BV, numbers_B, Decoding("plain", 1.0, top_k, top_p))
            if top_k == 1 or top_p < 1e-6 or number == 0:
                assert drawn.tolist() == logits_BV.argmax(-1).tolist()


def test_a_temperature_of_zero_is_the_likeliest_token():
    logits_BV = torch.randn(4, 9)
    assert Decoding().chooser([1, 2, 3, 4]).draws is None
    assert GREEDY.choose(logits_BV, range(4)).tolist() == logits_BV.argmax(-1).tolist()


def systems(team):
    solver = team.prompts["solver"]
    yield Alone(solver, 6, decoding=WARM)
    yield TextSystem(team, 6, decoding=WARM)
    links = make_links(team).requires_grad_(False)
    yield System(team, links, 2, 3, max_new_tokens=6, decoding=WARM)


def test_a_text_depends_on_the_question_and_the_sample_alone(team):
    rows = make_rows(6)
    other = [{**row, SAMPLE: 1} for row in rows]
    for system in systems(team):
        every = [a.text for a in system.answer(rows, 2)]
        assert len(set(every)) > 1
        assert [system.answer([row], 2)[0].text for row in rows] == every
        placed = [{**row, "_line": 7 + i} for i, row in enumerate(reversed(rows))]
        assert [a.text for a in system.answer(placed, 2)] == every[::-1]
        assert [a.text for a in system.answer(other, 2)] != every


def test_samples_of_a_question_are_independent(team):
    """The first token of many samples has the model's own distribution."""
    (row,), count = make_rows(1), 600
    alone = Alone(team.prompts["solver"], 1, batch_size=count, decoding=WARM)
    texts = [a.text for a in alone.answer([{**row, SAMPLE: i} for i in range(count)])]
    agent = alone.prompt.agent
    batch = embed_prompts(agent, alone.prompt.encode([row], 1, first=True), {})
    with torch.no_grad():
        p_V = (agent.logits(new_cache(agent, None).read(batch)[:, -1])[0] / 1.5).softmax(-1)
    words = Counter()
    for token, p in enumerate(p_V.tolist()):
        words[agent.tokenizer.decode([token], skip_special_tokens=True)] += p
    seen = Counter(texts)
    for word, p in words.items():
        error = math.sqrt(p * (1 - p) / count)
        assert abs(seen[word] / count - p) <= 5 * error + 1e-9, word


@pytest.mark.parametrize("texts", [1, 2, 5, 8])
def test_pass_at_k_is_the_mean_over_all_choices_of_k_texts(texts):
    for right in range(texts + 1):
        for k in range(1, texts + 1):
            chosen = list(combinations([True] * right + [False] * (texts - right), k))
            assert pass_at(right, texts, k) == pytest.approx(sum(map(any, chosen)) / len(chosen))


def record(index, sample, read, right=False):
    about = {"index": index, "sample": sample, "read": read, "readable": read is not None}
    return about | {"right": right}


def test_the_majority_is_of_readable_answers_and_ties_go_to_the_first():
    one = [record(0, 0, "4"), record(0, 1, None), record(0, 2, "5", True), record(0, 3, "5", True)]
    assert majority(one)["read"] == "5"
    assert majority([record(0, 0, "a"), record(0, 1, "b", True)])["read"] == "a"
    assert majority([record(0, 0, None), record(0, 1, None)])["read"] is None
    assert majority([record(0, 0, None), record(0, 1, None), record(0, 2, "b")])["read"] == "b"
    found = sampled([one, [record(1, i, "x", True) for i in range(4)]])
    assert found == {"samples": 4, "pass_at": {"1": 0.75, "2": pytest.approx(11 / 12), "4": 1.0}}
