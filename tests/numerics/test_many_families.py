"""The whole unroll against the naive one, family by family: equal, or refused at loading.

Links are float32 or wider and co-trained, two rounds, rows of unequal length. In float64 where the
family computes in it; parts in float32 leave its rounding. Families whose attention or states the
blocks do not fit use the library's cache.
"""

import dataclasses
import warnings

import naive
import pytest
import torch
from tiny import exact_norm, in_float64, make_links, make_rows, make_team, make_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

from rmas_train.agents.agent import Agent, freeze
from rmas_train.engine.probe import check_agent
from rmas_train.errors import AgentError, PrefixReuseWarning
from rmas_train.objectives.outer import OuterObjective

# Family -> largest relative difference of the gradients; of the loss it is a hundredth.
EXACT = 1e-7
SINGLE = 2e-3  # experts, recurrent states or masks are float32
FAMILIES = {
    **dict.fromkeys(("apertus", "arcee", "bitnet", "exaone4", "gemma", "gemma3_text"), EXACT),
    **dict.fromkeys(("glm", "glm4", "gpt2", "gpt_bigcode", "gpt_neox", "granite"), EXACT),
    **dict.fromkeys(("helium", "hunyuan_v1_dense", "hyperclovax", "internlm3", "jais2"), EXACT),
    **dict.fromkeys(("lfm2", "llama", "ministral", "ministral3", "mistral", "nemotron"), EXACT),
    **dict.fromkeys(("olmo2", "olmo3", "opt", "persimmon", "phi", "phi3", "qwen2"), EXACT),
    **dict.fromkeys(("qwen3", "seed_oss", "smollm3", "starcoder2"), EXACT),
    **dict.fromkeys(("cohere", "cohere2", "ernie4_5", "granitemoe", "mixtral", "olmo"), SINGLE),
    **dict.fromkeys(("olmo_hybrid", "olmoe", "qwen2_moe", "qwen3_moe", "qwen3_5_text"), SINGLE),
    "qwen3_next": SINGLE,
}
LIBRARY = {
    **dict.fromkeys(("doge", "gpt_neox_japanese"), EXACT),
    **dict.fromkeys(("bloom", "gemma2", "granite_swa", "jetmoe", "mpt"), SINGLE),
}
REFUSED = ("bailing_hybrid", "bert-generation", "ctrl", "falcon_h1", "mamba", "rwkv")


def build(kind: str) -> Agent:
    """A tiny model of a family; sizes that it does not have are left out."""
    tokenizer = make_tokenizer("planner")
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 24,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 12,
        "max_position_embeddings": 256,
        "initializer_range": 0.2,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
    }
    known = AutoConfig.for_model(kind)
    sizes = {k: v for k, v in sizes.items() if hasattr(known, k)}
    if kind == "qwen3_next":
        sizes |= {"layer_types": ["linear_attention", "full_attention"], "num_experts": 4}
        sizes |= {"num_experts_per_tok": 2}
        sizes |= {"linear_num_value_heads": 2, "linear_num_key_heads": 1}
        sizes |= {"linear_key_head_dim": 8, "linear_value_head_dim": 8}
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(kind, **sizes), dtype=torch.float32
    )
    return freeze(Agent("planner", model, tokenizer, f"tiny/{kind}"))


def widened(agent: Agent, tolerance: float) -> tuple[Agent, torch.dtype]:
    """In float64, where the family computes in it."""
    if tolerance == SINGLE:
        return agent, torch.float32
    return in_float64(agent), torch.float64


def check_unroll(agent: Agent, dtype: torch.dtype, tolerance: float, table) -> None:
    team = make_team(
        {n: dataclasses.replace(agent, name=n) for n in ("planner", "critic", "solver")}
    )
    links, plain = make_links(team).to(dtype), make_links(team).to(dtype)
    plain.load_state_dict(links.state_dict())
    rows = make_rows(3)
    for row, more in zip(rows, ("", "red", "two blue"), strict=True):
        row["question"] += f" {more}"
    loss = OuterObjective(team, links, table(rows), 2, 2, train_inner=True)([0, 1, 2], 2).sum()
    total = sum(naive.loss(team, plain, row, 2, 2) for row in rows)
    torch.testing.assert_close(loss, total, rtol=max(1e-9, tolerance / 100), atol=0)
    loss.backward()
    total.backward()
    for (name, p), q in zip(links.named_parameters(), plain.parameters(), strict=True):
        if q.grad is not None and q.grad.norm() > 1e-6:
            assert (p.grad - q.grad).norm() <= tolerance * q.grad.norm(), name


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_equals_the_naive_unroll(family, table):
    agent, dtype = widened(build(family), {**FAMILIES, **LIBRARY}[family])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agent = check_agent(agent)
    assert agent.attends_to_blocks
    check_unroll(agent, dtype, FAMILIES[family], table)


@pytest.mark.slow
@pytest.mark.parametrize("family", LIBRARY)
def test_a_family_with_the_librarys_cache_equals_the_naive_unroll(family, table):
    agent, dtype = widened(build(family), {**FAMILIES, **LIBRARY}[family])
    with pytest.warns(PrefixReuseWarning, match="cannot reuse frozen prefixes"):
        agent = check_agent(agent)
    assert not agent.attends_to_blocks
    check_unroll(agent, dtype, LIBRARY[family], table)


@pytest.mark.slow
@pytest.mark.parametrize("family", REFUSED)
def test_a_family_that_would_be_wrong_is_refused(family):
    with pytest.raises(AgentError, match="family is not supported") as error:
        check_agent(build(family))
    assert len(str(error.value).splitlines()) == 1


def test_a_norm_in_float64_is_the_same_norm():
    agent = build("gemma")
    norm = agent.model.model.norm
    with torch.no_grad():
        norm.weight.normal_()
    x = torch.randn(4, 24)
    torch.testing.assert_close(exact_norm(norm)(x), norm(x), rtol=1e-5, atol=1e-5)
