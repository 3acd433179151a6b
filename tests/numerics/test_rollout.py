"""The cached, batched rollout against re-running whole sequences one by one."""

import dataclasses

import naive
import pytest
import torch
from tiny import TINY, in_float64, make_agent, make_links, make_rows, make_team
from unrolling import unroll

from rmas_train.engine.inputs import LatentMessage, embed_prompts
from rmas_train.engine.rollout import rollout


@pytest.mark.parametrize("name", TINY)
def test_cached_and_batched_equals_uncached_one_by_one(name):
    agent = in_float64(make_agent(name))
    team = make_team({n: make_agent(n) for n in TINY} | {name: agent})
    inner = make_links(team).double().inner[name]
    source = team.topology.incoming(name)[0].source
    prompts = team.prompts[name].encode(make_rows(4), 1, first=False)
    assert len({len(p.ids) for p in prompts}) > 1, "rows should differ in length"
    message = torch.randn(4, 3, agent.width, dtype=torch.float64, requires_grad=True)

    batch = embed_prompts(agent, prompts, {source: LatentMessage(message).slot(agent)})
    hidden, latents = rollout(agent, inner, batch, 5)
    weight = torch.randn_like(latents)
    (latents * weight).sum().backward()
    fast = [message.grad.clone(), *(p.grad.clone() for p in inner.parameters())]

    message.grad = None
    inner.zero_grad()
    total = 0
    for i in range(4):
        slot = LatentMessage(message[i : i + 1]).slot(agent)
        one = embed_prompts(agent, prompts[i : i + 1], {source: slot})
        h, z = naive.rollout(agent, inner, one.embeds[0], 5)
        torch.testing.assert_close(hidden[i], h, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(latents[i], z, rtol=1e-10, atol=1e-10)
        total = total + (z * weight[i]).sum()
    total.backward()
    slow = [message.grad, *(p.grad for p in inner.parameters())]
    for a, b in zip(fast, slow, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


def test_an_unroll_of_a_batch_equals_its_rows_one_by_one(agents64):
    team = make_team(agents64)
    links = make_links(team).double()
    rows = make_rows(5)
    batch = unroll(team, links, rows, 2, 3).messages
    assert len(batch) == 5  # three edges in round 1, two in round 2
    for i, row in enumerate(rows):
        for key, message in unroll(team, links, [row], 2, 3).messages.items():
            torch.testing.assert_close(batch[key][i], message[0], rtol=1e-9, atol=1e-10)


def test_chunks_change_nothing(agents64):
    team = make_team(agents64)
    links = make_links(team).double()
    whole = unroll(team, links, make_rows(5), 2, 2).messages
    chunks = unroll(team, links, make_rows(5), 2, 2, chunk=2).messages
    for key in whole:
        torch.testing.assert_close(whole[key], chunks[key], rtol=1e-9, atol=1e-10)


def test_latent_length_0_leaves_slots_empty(team):
    result = unroll(team, make_links(team), make_rows(2), 2, 0)
    assert all(m.shape[1] == 0 for m in result.messages.values())
    assert all(call.latents.shape[1] == 0 for call in result.calls[:-1])


def test_edges_carry_states_or_latents_as_asked(agents):
    rows = make_rows(2)
    team = make_team(agents)
    links = make_links(team)
    inner = unroll(team, links, rows, 1, 2).messages[1, "planner-critic"]
    paper = dataclasses.replace(team, edge_input="hidden")
    hidden = unroll(paper, links, rows, 1, 2).messages[1, "planner-critic"]
    prompts = team.prompts["planner"].encode(rows, 1, first=True)
    batch = embed_prompts(agents["planner"], prompts, {})
    h, z = rollout(agents["planner"], links.inner["planner"], batch, 2)
    torch.testing.assert_close(inner, links.outer["planner-critic"](z))
    torch.testing.assert_close(hidden, links.outer["planner-critic"](h))
    assert not torch.allclose(inner, hidden)
