"""The engine's parts, each on and off: same loss, same gradient; and what each saves."""

import dataclasses
from itertools import pairwise

import pytest
import torch
from tiny import TINY, in_float64, make_agent, make_family, make_links, make_rows, make_team
from unrolling import answer_in_text

from rmas_train.engine import answer, prompt_batch
from rmas_train.engine.decoding import Decoding
from rmas_train.engine.inputs import embed_ids
from rmas_train.engine.kv_cache import new_cache
from rmas_train.engine.prompt_batch import PrefixStore
from rmas_train.engine.rollout import rollout
from rmas_train.objectives.outer import OuterObjective
from rmas_train.objectives.outer_options import Backward
from rmas_train.systems.latent import System

ROWS = [0, 1, 2, 3, 4]
# float32 by rounding alone: CPUs with other matrix kernels were seen at 1.2e-5.
EXACT = {torch.float64: 1e-10, torch.float32: 5e-5}


def team_in(dtype: torch.dtype, blocks: bool):
    agents = {n: make_agent(n) for n in TINY}
    if dtype == torch.float64:
        agents = {n: in_float64(a) for n, a in agents.items()}
    return make_team(
        {n: dataclasses.replace(a, attends_to_blocks=blocks) for n, a in agents.items()}
    )


def gradients(team, dtype, table, parts=(ROWS,), **options):
    """Gradient of every link, as one vector, after two rounds of three latent steps."""
    links = make_links(team).to(dtype)
    objective = OuterObjective(team, links, table(make_rows(5)), 2, 3, train_inner=True, **options)
    for part in parts:
        objective(part, 2).sum().backward()
    return torch.cat([p.grad.flatten() for p in links.parameters()])


@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize("part", ["blocks", "prefix_cache", "checkpoint", "chunked", "batch"])
def test_each_part_leaves_the_gradient_as_it_is(part, dtype, table, monkeypatch):
    """Against the plain way: whole prompts each time, the library's cache, all logits at once."""
    plain = gradients(team_in(dtype, blocks=False), dtype, table)
    options, parts = {}, (ROWS,)
    if part == "prefix_cache":
        options = {"prefixes": PrefixStore(2**30)}
    if part == "checkpoint":
        options = {"backward": Backward(recompute=True)}
    if part == "chunked":
        monkeypatch.setattr(answer, "LOGITS_BYTES", 4 * 330 * 3)  # three positions a chunk
    if part == "batch":
        parts = ([0], [1, 2], [3, 4])
    fast = gradients(team_in(dtype, blocks=True), dtype, table, parts, **options)
    assert (fast - plain).norm() <= EXACT[dtype] * plain.norm()


@pytest.mark.parametrize("cache", [0, 2**30])
def test_a_prefix_is_read_once_and_reused_over_rounds(cache, table, monkeypatch):
    """One read for each agent in three rounds; with a cache, none in the next step."""
    reads = []
    read = prompt_batch.read_prefix
    monkeypatch.setattr(
        prompt_batch, "read_prefix", lambda agent, ids: reads.append(agent.name) or read(agent, ids)
    )
    team = team_in(torch.float32, blocks=True)
    store = PrefixStore(cache)
    objective = OuterObjective(team, make_links(team), table(make_rows(5)), 3, 3, prefixes=store)
    losses = [objective(ROWS, 3).item()]
    assert len(reads) == (15 if cache else 3), "one row at a time for the cache, else the batch"
    assert set(reads) == set(TINY)
    reads.clear()
    losses.append(objective(ROWS, 3).item())
    assert len(reads) == (0 if cache else 3)
    assert losses[0] == losses[1]


def kept_by_a_call(prompt: int, latent: int, blocks: bool) -> int:
    """Bytes that autograd keeps of one agent call, weights and the frozen prefix aside."""
    agent = dataclasses.replace(make_agent("planner"), attends_to_blocks=blocks)
    team = make_team({n: make_agent(n) for n in TINY})
    inner = make_links(team).inner["planner"]
    ids = [[3 + i % 50 for i in range(prompt)]]
    frozen = prompt_batch.read_prefix(agent, [ids[0][:-4]]) if blocks else None
    batch = embed_ids(
        agent, [ids[0][-4:]] if blocks else ids, skip=[prompt - 4] if blocks else None
    )
    weights = {p.untyped_storage().data_ptr() for p in agent.model.parameters()}
    if frozen is not None:
        weights |= {x.untyped_storage().data_ptr() for state in frozen.states for x in state}
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    batch = dataclasses.replace(batch, embeds=batch.embeds.clone().requires_grad_())
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        rollout(agent, inner, batch, latent, frozen)
    return sum(t.untyped_storage().nbytes() for k, t in kept.items() if k not in weights)


def test_saved_bytes_of_a_call_do_not_grow_with_the_prefix():
    """Prompt and latent steps: O(latent^2) beside the prefix, against O(prompt * latent)."""
    m, key_bytes = 12, 2 * 2 * 12 * 4  # two layers, keys and values, one head of 12 floats
    by_blocks = {t: kept_by_a_call(t, m, blocks=True) for t in (32, 128)}
    by_copies = {t: kept_by_a_call(t, m, blocks=False) for t in (32, 128)}
    assert by_blocks[128] == by_blocks[32]
    assert by_copies[128] - by_copies[32] > 96 * m * key_bytes
    growth = [kept_by_a_call(64, n, blocks=True) for n in (8, 16, 24, 32)]
    steps = [b - a for a, b in pairwise(growth)]
    bends = [b - a for a, b in pairwise(steps)]
    assert all(b == pytest.approx(8 * 8 * key_bytes, rel=0.2) for b in bends), bends


def test_rows_that_have_ended_leave_the_batch(monkeypatch):
    """Later forwards see only what still writes."""
    agent = make_agent("solver")
    widths = []
    hidden = type(agent).hidden

    def spy(self, embeds, *args):
        widths.append(embeds.shape[0])
        return hidden(self, embeds, *args)

    monkeypatch.setattr(type(agent), "hidden", spy)
    batch = embed_ids(agent, [[3, 4, 5], [9, 8, 7], [20, 30]])
    texts = answer.generate(agent, batch, None, 3)
    last = {t.tokens for t in texts}
    with torch.no_grad():
        first = agent.logits(new_cache(agent).read(batch)[:, -1]).argmax(-1).tolist()
    ends = dataclasses.replace(agent, tokenizer=Ending(agent.tokenizer, first[1]))
    assert last == {3}
    widths.clear()
    texts = answer.generate(ends, batch, None, 3)
    assert texts[1].tokens == 1
    assert widths[0] == 3 and widths[1] == 3 - first.count(first[1])


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3"])
def test_static_decoding_writes_the_same_text(family):
    """The library's loop on a static cache, answers and text recursion alike."""
    team = make_team({n: make_family(family, n) for n in TINY})
    links, rows = make_links(team), make_rows(4)
    plain, static = (
        System(team, links, 2, 3, max_new_tokens=6, decoding=Decoding(way)).answer(rows)
        for way in ("plain", "static")
    )
    assert plain == static
    written = [
        answer_in_text(team, rows, 2, max_new_tokens=4, batch_size=3, decoding=Decoding(way))
        for way in ("plain", "static")
    ]
    assert written[0] == written[1]


DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


@pytest.mark.parametrize("device", DEVICES)
def test_bfloat16_agents_with_float32_links(device, table):
    """Links, their gradients and the loss stay float32; the engine equals the plain way to bf16."""
    grads, losses = [], []
    for blocks in (False, True):
        team = team_in(torch.float32, blocks)
        for name, agent in team.agents.items():
            agent.model.to(device=device, dtype=torch.bfloat16)
            assert team.agents[name].dtype == torch.bfloat16
        links = make_links(team).to(device)
        objective = OuterObjective(team, links, table(make_rows(5)), 2, 3, train_inner=True)
        loss = objective(ROWS, 2).sum()
        loss.backward()
        assert loss.dtype == torch.float32
        assert all(p.dtype == p.grad.dtype == torch.float32 for p in links.parameters())
        grads.append(torch.cat([p.grad.flatten() for p in links.parameters()]))
        losses.append(loss.item())
    exact = gradients(team_in(torch.float32, blocks=True), torch.float32, table).to(device)
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    off = [1 - torch.cosine_similarity(g, exact, dim=0).item() for g in grads]
    assert off[1] < max(0.02, 2 * off[0]), "no further from float32 than the plain way"


class Ending:
    """The tokenizer with another end-of-text token."""

    def __init__(self, tokenizer, end_id):
        self.eos_token_id, self.pad_token_id, self.decode = end_id, 0, tokenizer.decode
