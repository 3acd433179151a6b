"""The vocabulary read-out against naive statements, in float64."""

import copy

import naive
import pytest
import torch
from test_outer import table, two_agents
from tiny import in_float64, make_agent, make_links, make_rows, make_team

from rmas_train.analysis.confidence import Confidence
from rmas_train.config import Config, LinksConfig
from rmas_train.links import readout as module
from rmas_train.links.modules import make_link
from rmas_train.links.readout import Readout, bind_readouts, own_table, shared_ids, shared_readout
from rmas_train.links.start import silence_branches
from rmas_train.links.vocabulary import is_ordinary, token_bytes
from rmas_train.objectives.outer import OuterObjective
from rmas_train.recursion import Team

VOCABULARY = {"readout": "vocabulary", "edge_input": "hidden", "norm": "none"}


def naive_expected(agent, target, hidden_D, temperature=1.0, top_k=None):
    """String by string: the likeliest shared ones, renormalised, times the target's embeddings."""
    logits = agent.model.lm_head(hidden_D[None])[0]
    left, right = token_bytes(agent.tokenizer), token_bytes(target.tokenizer)
    shared = sorted(s for s in left.keys() & right.keys() if is_ordinary(s))
    weights = {s: (logits[left[s]] / temperature).exp() for s in shared}
    kept = sorted(shared, key=lambda s: -weights[s].item())[:top_k]
    total = sum(weights[s] for s in kept)
    return sum(
        weights[s] / total * target.embed(torch.tensor([right[s]]))[0].to(hidden_D) for s in kept
    )


@pytest.fixture
def pair():
    return in_float64(make_agent("planner")), in_float64(make_agent("critic"))


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, None), (0.5, None), (1.0, 1), (2.0, 5)])
def test_a_message_is_the_expected_embedding_over_shared_strings(
    pair, temperature, top_k, monkeypatch
):
    monkeypatch.setattr(module, "BLOCK_BYTES", 4096)  # several blocks of rows and of vectors
    source, target = pair
    readout = shared_readout(
        source, target, shared_ids(source, target), temperature=temperature, top_k=top_k
    )
    torch.manual_seed(0)
    hidden = torch.randn(2, 3, source.width, dtype=torch.float64, requires_grad=True)
    ours = readout(hidden)
    flat = hidden.reshape(-1, source.width)
    stated = torch.stack([naive_expected(source, target, h, temperature, top_k) for h in flat])
    torch.testing.assert_close(ours.reshape(6, -1), stated, rtol=1e-9, atol=1e-12)
    weights = torch.randn_like(stated)
    (a,) = torch.autograd.grad((ours.reshape(6, -1) * weights).sum(), hidden)
    (b,) = torch.autograd.grad((stated * weights).sum(), hidden)
    torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-12)


def test_a_thought_is_the_expected_embedding_over_the_agents_own_tokens(pair):
    agent, _ = pair
    readout = Readout(agent, own_table(agent))
    hidden = torch.randn(4, agent.width, dtype=torch.float64)
    everything = agent.embed(torch.arange(agent.rows))
    stated = agent.model.lm_head(hidden).softmax(-1) @ everything
    torch.testing.assert_close(readout(hidden), stated, rtol=1e-9, atol=1e-12)


def test_a_confident_state_is_sent_as_the_targets_embedding_of_that_string(pair):
    """Where text would be certain, the message is the text: training begins there."""
    source, target = pair
    readout = shared_readout(source, target, shared_ids(source, target), temperature=1e-3)
    left, right = token_bytes(source.tokenizer), token_bytes(target.tokenizer)
    hidden = 10 * source.model.lm_head.weight[left[b" two"]].detach()
    wanted = target.embed(torch.tensor(right[b" two"]))
    torch.testing.assert_close(readout(hidden), wanted.double(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", ["vocabulary", "expected_embedding"])
def test_loss_and_gradient_of_an_unroll_are_the_naive_ones(kind):
    edge_input = "hidden" if kind == "vocabulary" else "inner"
    team = two_agents(edge_input)
    options = {"readout": kind, "edge_input": edge_input, "norm": "none"}
    links = bound(team, options)
    other = copy.deepcopy(links)
    rows = make_rows(3)
    objective = OuterObjective(team, links, table(rows), 2, 3, train_inner=True)
    ours = objective([0, 1, 2], 2).sum()
    ours.backward()
    stated = sum(naive.loss(team, restate(team, other, kind), row, 2, 3) for row in rows)
    assert ours.item() == pytest.approx(stated.item(), rel=1e-9)
    stated.backward()
    for (name, p), q in zip(links.named_parameters(), other.parameters(), strict=True):
        assert p.grad.abs().sum() > 0, name
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("backward", [{"recompute": True}, {"gradient": "parallel"}])
def test_other_ways_back_give_the_same_gradient(backward):
    from rmas_train.engine.rollout import Gradient
    from rmas_train.objectives.outer_options import Backward

    team, rows, found = two_agents("hidden"), make_rows(3), []
    if backward.get("gradient"):
        backward = {"gradient": Gradient("parallel", 3)}
    for how in (Backward(), Backward(**backward)):
        links = bound(team, VOCABULARY)
        OuterObjective(team, links, table(rows), 2, 3, backward=how)([0, 1, 2], 2).sum().backward()
        found.append({n: p.grad for n, p in links.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, grad in found[0].items():
        torch.testing.assert_close(grad, found[1][name], rtol=1e-7, atol=1e-12)


def test_the_start_is_soft_text_and_the_branch_learns():
    team = two_agents("hidden")
    links = bound(team, VOCABULARY)
    silence_branches(links)
    link = links.outer["planner-solver"]
    hidden = torch.randn(5, link.d_source, dtype=torch.float64)
    torch.testing.assert_close(link(hidden), link.bound_readout(hidden), rtol=1e-12, atol=0)
    link(hidden).pow(2).sum().backward()
    assert link.proj2.weight.grad.abs().sum() > 0


def test_the_branch_is_as_loud_as_the_targets_embeddings():
    """As seen: one step of Adam on a branch of scale 1 drowned embeddings of norm 0.5."""
    torch.manual_seed(0)
    quiet, loud = (
        make_link(8, 8, outer=True, norm="none", has_readout=True, target_norm=norm)
        for norm in (0.5, 25.0)
    )
    loud.load_state_dict({**quiet.state_dict(), "scale": loud.scale})
    x = torch.randn(4, 8)
    for link in (quiet, loud):
        link.bound_readout = torch.zeros_like
    torch.testing.assert_close(loud(x), 50 * quiet(x))


def test_copies_of_links_share_their_agents():
    team = two_agents("hidden")
    links = bound(team, VOCABULARY)
    again = copy.deepcopy(links)
    assert again.outer["planner-solver"].bound_readout.agent is team.agents["planner"]
    assert not any("model" in name for name in links.state_dict())


def test_agents_that_are_elsewhere_get_no_readout(agents64):
    team = make_team(agents64, "hidden")
    links = make_links(team, **VOCABULARY).double()
    here = {"planner": team.agents["planner"]}
    bind_readouts(links, here, team.topology, LinksConfig(**VOCABULARY))
    assert links.inner["planner"].bound_readout is not None
    assert links.outer["planner-critic"].bound_readout is None


def test_gradient_norms_and_entropy_are_those_of_the_whole_jacobian(pair):
    """The analysis sends random vectors back; naively, the Jacobian is written out for them."""
    source, target = pair
    torch.manual_seed(0)
    link = make_link(source.width, target.width, outer=True, norm="none", has_readout=True).double()
    link.bound_readout = shared_readout(source, target, shared_ids(source, target))
    hidden = torch.cat([torch.randn(2, source.width), 30 * torch.randn(2, source.width)]).double()
    found = Confidence(Config(seed=5)).measure(source, link, link, hidden)
    probes = Confidence(Config(seed=5))._generator
    for name, function in (
        ("readout", lambda h: naive_expected(source, target, h)),
        ("link", lambda h: link(h[None])[0]),
        ("text", lambda h: naive_soft_text(source, h)),
    ):
        width = source.width if name == "text" else target.width
        v = [torch.randn(4, width, generator=probes).double() for _ in range(8)]
        for row in range(4):
            jacobian = torch.autograd.functional.jacobian(function, hidden[row])
            back = [jacobian.T @ (x[row] / x[row].norm()) for x in v]
            stated = torch.stack([b.pow(2).sum() for b in back]).mean().sqrt()
            assert found[name][row].item() == pytest.approx(stated.item(), rel=1e-5)
    assert (found["entropy"][2:] < found["entropy"][:2]).all()
    assert (found["readout"][2:] < found["readout"][:2]).all(), "certain text passes less"


def naive_soft_text(agent, hidden_D):
    """W_in softmax(W_out h), token by token."""
    p_V = agent.model.lm_head(hidden_D[None])[0].softmax(-1)
    embeds = [agent.embed(torch.tensor([i]))[0].to(hidden_D) for i in range(agent.rows)]
    return sum(p * e for p, e in zip(p_V, embeds, strict=True))


def test_where_there_is_no_read_out_the_agents_own_entropy_counts(agents64):
    source, target = agents64["planner"], agents64["critic"]
    link = make_link(source.width, target.width, outer=True).double()
    hidden = torch.randn(3, source.width).double()
    found = Confidence(Config(seed=5)).measure(source, link, link, hidden)
    p = source.model.lm_head(hidden).softmax(-1)
    torch.testing.assert_close(found["entropy"], -(p * p.log()).sum(-1))
    assert set(found) == {"entropy", "link", "text"}


def bound(team: Team, options):
    links = make_links(team, **options).double()
    bind_readouts(links, team.agents, team.topology, LinksConfig(**options))
    return links


def restate(team, links, kind):
    """The links as their formulas say: expected embedding plus W2 gelu(W1 LN(h))."""

    class Naive:
        def __init__(self) -> None:
            self.inner = {n: self.thought(n) for n in team.agents}
            self.outer = {e.key: self.message(e) for e in team.topology.edges}

        def branch(self, link, x):
            hidden = torch.nn.functional.gelu(link.proj1(link.pre_ln(x)))
            scale = torch.tensor(link.d_target**-0.5).double()  # a float32; the target norm is 1
            return link.proj2(hidden) * scale

        def thought(self, name):
            agent, link = team.agents[name], links.inner[name]
            everything = agent.embed(torch.arange(agent.rows))
            return lambda h: agent.model.lm_head(h).softmax(-1) @ everything + self.branch(link, h)

        def message(self, edge):
            source, target = team.agents[edge.source], team.agents[edge.target]
            link = links.outer[edge.key]
            if kind == "expected_embedding":
                return link
            return lambda hidden: torch.stack(
                [naive_expected(source, target, h) + self.branch(link, h) for h in hidden]
            )

    return Naive()
