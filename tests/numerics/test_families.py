"""Frozen prefixes and block attention, family by family, against the naive statement."""

import dataclasses
import warnings

import naive
import pytest
import torch
from tiny import (
    CHAT,
    FAMILIES,
    NO_SYSTEM_CHAT,
    in_float64,
    make_agent,
    make_family,
    make_links,
    make_rows,
    make_team,
    make_tokenizer,
)
from unrolling import unroll

from rmas_train.agents.prompts import Prompt
from rmas_train.engine.probe import check_agent
from rmas_train.engine.prompt_batch import PrefixCache, read_prefix, stack
from rmas_train.errors import PrefixReuseWarning
from rmas_train.objectives.outer import OuterObjective
from rmas_train.recursion import Team
from rmas_train.runs.starting_links import target_norm
from rmas_train.systems.latent import System

DEEPSEEK_CHAT = (  # the system text has no mark of its own
    "{% for m in messages %}{% if m.role == 'user' %}<|s|>user {% endif %}{{ m.content }}"
    "{% endfor %}{% if add_generation_prompt %}<|s|>assistant{% endif %}"
)
# Recurrent layers compute in float32 whatever the dtype of the model.
TOLERANCE = {"qwen3_5": 2e-4}


def family_team(name: str) -> Team:
    """Planner and solver of one family, critic another; what follows the slot differs in length."""
    agents = {n: make_family(name, n) if n != "critic" else make_agent(n) for n in ROLES}
    team = make_team({n: in_float64(a) for n, a in agents.items()})
    for role, agent in team.agents.items():
        source = team.topology.incoming(role)[0].source
        text = f"<<question>> note <<message:{source}>> <<ending>> go"
        team.prompts[role] = Prompt(agent, {"user": text})
    return team


ROLES = ("planner", "critic", "solver")
ROWS = [
    row | {"ending": ending}
    for row, ending in zip(make_rows(4), ["red", "two blue", "red", "green red"], strict=True)
]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_equals_its_rows_one_by_one(family, table):
    """Unequal prefixes and suffixes, two rounds: loss, messages and every gradient."""
    team = family_team(family)
    rtol = TOLERANCE.get(family, 1e-7)
    links, plain = make_links(team).double(), make_links(team).double()
    plain.load_state_dict(links.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        objective = OuterObjective(team, links, table(ROWS), 2, 3, train_inner=True)
        loss = objective([0, 1, 2, 3], 2).sum()
    messages = unroll(team, links, ROWS, 2, 3).messages
    total = sum(naive.loss(team, plain, row, 2, 3) for row in ROWS)
    torch.testing.assert_close(loss, total, rtol=rtol, atol=rtol)
    for i, row in enumerate(ROWS):
        for key, message in naive.unroll(team, plain, row, 2, 3)[0].items():
            torch.testing.assert_close(messages[key][i], message, rtol=rtol, atol=rtol)
    loss.backward()
    total.backward()
    for (name, p), q in zip(links.named_parameters(), plain.named_parameters(), strict=True):
        grad = q[1].grad
        if grad is not None:
            assert (p.grad - grad).norm() < 10 * rtol * grad.norm(), name


def other_agent(family: str, name: str, chat: str):
    """Untied embeddings, a tokenizer without a pad token, another chat template."""
    tokenizer = make_tokenizer(name, chat)
    tokenizer.pad_token = None
    return make_family(family, name, tokenizer, tie_word_embeddings=False)


@pytest.mark.parametrize("chat", [CHAT, NO_SYSTEM_CHAT, DEEPSEEK_CHAT])
@pytest.mark.parametrize("family", FAMILIES)
def test_untied_without_pad_token_with_and_without_system_role(family, chat, table):
    agents = {n: in_float64(other_agent(family, n, chat)) for n in ROLES}
    assert all(a.tokenizer.pad_token_id is None for a in agents.values())
    assert not any(a.model.config.tie_word_embeddings for a in agents.values())
    team = make_team(agents)
    for role, agent in agents.items():
        source = team.topology.incoming(role)[0].source
        texts = {"system": "be red", "user": f"<<question>> note <<message:{source}>> go"}
        team.prompts[role] = Prompt(agent, texts)
        (one,) = team.prompts[role].encode(ROWS[:1], 2, first=False)
        assert agent.tokenizer.decode(one.ids).count("be red") == 1
    rtol = TOLERANCE.get(family, 1e-7)
    links = make_links(team).double()
    loss = OuterObjective(team, links, table(ROWS), 2, 3)([0, 1, 2, 3], 2).sum()
    total = sum(naive.loss(team, links, row, 2, 3) for row in ROWS)
    torch.testing.assert_close(loss, total, rtol=rtol, atol=rtol)


def test_gemmas_embeddings_are_scaled_inside_their_module():
    """A message replaces what the module returns, so that is what its norm is matched to."""
    agent = make_family("gemma3", "planner")
    ids = torch.tensor([3, 4, 5])
    scaled = agent.embed(ids)
    torch.testing.assert_close(scaled, agent.model.get_input_embeddings().weight[ids] * 24**0.5)
    norms = scaled.norm(dim=-1)
    assert target_norm(agent, [3, 4, 5]) == pytest.approx(float(norms.median()), rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_text_equals_the_naive_one(family):
    """Rows that end early leave the batch; the others go on as if alone."""
    team = family_team(family)
    links = make_links(team).double()
    answers = System(team, links, 2, 3, max_new_tokens=8).answer(ROWS)
    agent = team.agents["solver"]
    for row, answer in zip(ROWS, answers, strict=True):
        _, inbox = naive.unroll(team, links, row, 2, 3)
        embeds, ids = naive.prompt_embeds(team, "solver", row, 2, inbox), []
        while len(ids) < 8 and agent.end_id not in ids:
            logits = agent.model(inputs_embeds=embeds[None], use_cache=False).logits[0, -1]
            ids.append(int(logits.argmax()))
            embeds = torch.cat([embeds, agent.embed(torch.tensor(ids[-1:]))])
        assert answer.text == agent.tokenizer.decode(ids, skip_special_tokens=True)
        assert answer.tokens == len(ids)


@pytest.mark.parametrize("family", FAMILIES)
def test_prefixes_one_by_one_do_not_depend_on_the_batch(family):
    """What the cache over epochs relies on: found or computed, the same bits."""
    agent = make_family(family, "planner")
    ids = [list(range(3, 3 + n)) for n in (4, 7, 5)]
    cache = PrefixCache(2**30)
    first = cache.get(agent, ids[:2])
    second = cache.get(agent, ids)  # two found, one computed
    fresh = stack(agent, [read_prefix(agent, [row]) for row in ids])
    for a, b in zip(second.states, fresh.states, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert torch.equal(second.span.real, fresh.span.real)
    assert first.span.real.shape == (2, 7)


def test_the_prefix_cache_stays_within_its_bytes():
    agent = make_family("llama", "planner")
    one = read_prefix(agent, [[3, 4, 5]]).bytes
    cache = PrefixCache(2 * one)
    for start in range(5):
        cache.get(agent, [[3 + start, 4, 5]])
    assert cache.bytes == 2 * one
    assert PrefixCache(0).get(agent, [[3, 4, 5]]).bytes == one


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_passes_its_trial(family):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_agent(make_family(family, "planner")).attends_to_blocks


def test_an_agent_that_cannot_attend_to_blocks_is_named_and_still_right(table):
    """An attention of its own, outside the library's registry."""
    agents = {n: make_agent(n) for n in ROLES}
    for layer in agents["critic"].model.model.layers:
        layer.self_attn.forward = stubborn(layer.self_attn)
    with pytest.warns(PrefixReuseWarning, match="agent critic .*cannot reuse frozen prefixes"):
        agents["critic"] = check_agent(agents["critic"])
    assert not agents["critic"].attends_to_blocks
    team = make_team(agents)
    whole = {n: dataclasses.replace(a, attends_to_blocks=True) for n, a in team.agents.items()}
    links = make_links(team)
    loss = OuterObjective(team, links, table(make_rows(3)), 2, 3)([0, 1, 2], 2)
    naive_loss = sum(naive.loss(team, links, row, 2, 3) for row in make_rows(3))
    torch.testing.assert_close(loss.sum(), naive_loss, rtol=1e-4, atol=1e-4)
    assert whole["planner"].attends_to_blocks


def stubborn(attention):
    """The layer's own forward that wants tensors from its cache."""
    from transformers.models.llama.modeling_llama import eager_attention_forward

    def forward(hidden_states, position_embeddings, attention_mask, past_key_values=None, **kwargs):
        from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

        shape = (*hidden_states.shape[:-1], -1, attention.head_dim)
        q = attention.q_proj(hidden_states).view(shape).transpose(1, 2)
        k = attention.k_proj(hidden_states).view(shape).transpose(1, 2)
        v = attention.v_proj(hidden_states).view(shape).transpose(1, 2)
        q, k = apply_rotary_pos_emb(q, k, *position_embeddings)
        if past_key_values is not None:
            k, v = past_key_values.update(k, v, attention.layer_idx)
        bias = None
        if attention_mask is not None:
            bias = torch.where(attention_mask, 0.0, torch.finfo(q.dtype).min).to(q.dtype)
        elif q.shape[2] > 1:
            bias = torch.full((q.shape[2], k.shape[2]), torch.finfo(q.dtype).min).triu(1)
        out, weights = eager_attention_forward(attention, q, k, v, bias, attention.scaling)
        return attention.o_proj(out.reshape(*hidden_states.shape[:-1], -1)), weights

    return forward


def test_recurrent_agents_with_all_lengths_different_read_whole_prompts(table):
    team = family_team("qwen3_5")
    rows = [row | {"ending": "red " * i} for i, row in enumerate(make_rows(4))]
    links = make_links(team).double()
    objective = OuterObjective(team, links, table(rows), 2, 2)
    with pytest.warns(
        PrefixReuseWarning, match="agent (planner|solver).*4 rows have 4 different lengths"
    ):
        loss = objective([0, 1, 2, 3], 2).sum()
    total = sum(naive.loss(team, links, row, 2, 2) for row in rows)
    torch.testing.assert_close(loss, total, rtol=2e-4, atol=1e-4)
