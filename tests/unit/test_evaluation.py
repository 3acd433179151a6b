"""Intervals, derangements, shared tokens."""

import pytest
from tiny import make_rows, make_tokenizer
from unrolling import answer_in_text

from rmas_train.channels import translate
from rmas_train.engine.inputs import TextMessage
from rmas_train.evaluation.statistics import wilson
from rmas_train.links.vocabulary import shared_tokens, token_bytes
from rmas_train.systems.controls import derangement


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    # Newcombe (1998), Statistics in Medicine 17, table I: method 3.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_published_intervals(right, total, low, high):
    assert wilson(right, total) == pytest.approx((low, high), abs=5e-5)


def test_wilson_at_the_ends():
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(10, 10)[1] == 1.0
    assert wilson(0, 10)[0] == 0.0


@pytest.mark.parametrize("count", [2, 3, 10, 501])
def test_a_derangement_moves_every_row(count):
    order = derangement(count, 0)
    assert sorted(order) == list(range(count))
    assert all(i != j for i, j in enumerate(order))


def test_tokens_are_matched_by_bytes_across_families():
    byte, visible = make_tokenizer(), make_tokenizer(spaces="visible")
    assert " two" not in byte.get_vocab() and "\u2581two" in visible.get_vocab()
    left, right = token_bytes(byte), token_bytes(visible)
    assert b" two" in left and b" two" in right
    assert b"<|e|>" not in left
    for a, b in shared_tokens(byte, visible):
        assert byte.decode([a]) == visible.decode([b])


def test_text_recursion_counts_every_agents_tokens(team):
    rows = make_rows(3)
    one = answer_in_text(team, rows, 1, max_new_tokens=4, batch_size=2)
    two = answer_in_text(team, rows, 2, max_new_tokens=4, batch_size=3)
    assert all(3 <= t.tokens <= 12 for t in one)
    assert all(b.tokens > a.tokens for a, b in zip(one, two, strict=True))


def test_capped_text_is_counted_by_who_reads_it(team):
    """``one two three`` has other tokens for sender and receiver; the cap is the receiver's."""
    for name in ("critic", "solver"):
        agent = team.agents[name]
        whole = agent.tokenizer("one two three", add_special_tokens=False)["input_ids"]
        message = TextMessage(["one two three", "one"], most=2).rows([1, 0])
        assert message.slot(agent).ids[1] == whole[:2] and len(whole) > 2
        assert message.slot(agent).counts[1] == 2
    rows = make_rows(3)
    capped = answer_in_text(team, rows, 2, max_new_tokens=4, batch_size=2, most=1)
    free = answer_in_text(team, rows, 2, max_new_tokens=4, batch_size=2, most=100)
    plain = answer_in_text(team, rows, 2, max_new_tokens=4, batch_size=2)
    assert [a.text for a in free] == [a.text for a in plain] != [a.text for a in capped]


def test_translation_is_word_for_word():
    assert translate(" 4 D", {"D": "bo"}) == "4 bo"
    assert translate(" 4 D", {}) == " 4 D"
