"""Rollouts that an evaluation shares: the same bits as without sharing, and made once."""

import pytest
import torch
from tiny import make_links, make_rows

from rmas_train import channels
from rmas_train.channels import LatentChannel
from rmas_train.engine.thoughts import ThoughtStore
from rmas_train.recursion import Recursion

M = 3


def messages(team, links, rows, thoughts, chunk=2):
    channel = LatentChannel(links, M, team.edge_input, thoughts=thoughts)
    found = {}
    with torch.no_grad():
        for call in Recursion(team, channel).unroll(rows, 2, chunk=chunk):
            for key, message in call.messages.items():
                found[call.round, key] = message.vectors
    return found


@pytest.fixture
def counted(monkeypatch):
    """Number of rollouts per agent."""
    counts, plain = {}, channels.rollout

    def count(agent, *args):
        counts[agent.name] = counts.get(agent.name, 0) + 1
        return plain(agent, *args)

    monkeypatch.setattr(channels, "rollout", count)
    return counts


def test_shared_rollouts_change_no_bit_and_are_made_once(team, counted):
    rows, links, thoughts = make_rows(6), make_links(team), ThoughtStore()
    plain = messages(team, links, rows, None)
    before = counted["planner"]
    assert before == 6  # three chunks in two rounds
    for _ in range(2):
        shared = messages(team, links, rows, thoughts)
        assert all(torch.equal(shared[key], value) for key, value in plain.items())
    assert counted["planner"] == before + 2 * 6 - 3  # the first round of the second time is known
    assert counted["critic"] == 3 * 6  # what received a message is made every time


def test_other_inner_links_other_rows_and_other_batches_are_other_thoughts(team, counted):
    rows, links, thoughts = make_rows(4), make_links(team), ThoughtStore()
    messages(team, links, rows, thoughts)
    for changed in (
        {"links": make_links(team, seed=2)},
        {"rows": make_rows(4, first=4)},
        {"chunk": 4},
    ):
        options = {"links": links, "rows": rows, "chunk": 2} | changed
        before = counted["planner"]
        messages(team, options["links"], options["rows"], thoughts, options["chunk"])
        assert counted["planner"] - before == 2 * 4 // options["chunk"]


def test_nothing_is_shared_with_a_graph(team, counted):
    rows, links, thoughts = make_rows(2), make_links(team), ThoughtStore()
    channel = LatentChannel(links, M, thoughts=thoughts)
    for _ in range(2):
        for call in Recursion(team, channel).unroll(rows, 1):
            _ = call.messages
    assert counted["planner"] == 2


def test_no_more_is_kept_than_allowed():
    store = ThoughtStore(limit=100)
    for i in range(5):
        store.get(i, lambda: (torch.zeros(5), torch.zeros(5)))  # 40 bytes
    assert len(store._found) == 2 and store._bytes == 80
