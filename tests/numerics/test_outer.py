"""The outer stage's loss and gradient."""

import dataclasses
from pathlib import Path

import pytest
import torch
from naive import own_text
from tiny import TINY, in_float64, make_agent, make_links, make_rows, make_team
from unrolling import unroll

from rmas_train.agents.agent import Agent
from rmas_train.agents.prompts import Prompt
from rmas_train.config import EdgeConfig, TopologyConfig
from rmas_train.data.rows import Table
from rmas_train.engine.inputs import embed_prompts
from rmas_train.objectives.outer import OuterObjective
from rmas_train.objectives.outer_options import Backward
from rmas_train.recursion import Recursion, Team
from rmas_train.systems.latent import System
from rmas_train.topology import build_topology

VARIANTS = ["ln_res_2layer", "linear", "linear_res", "2layer", "res_2layer"]


def table(rows):
    return Table(Path("rows.jsonl"), rows)


def record_messages(monkeypatch) -> list[dict]:
    """Grows by the messages of each unroll that an objective makes from now on."""
    messages = []
    plain = Recursion.unroll

    def spy(self, *args, **kwargs):
        messages.append({})
        for call in plain(self, *args, **kwargs):
            yield call
            for edge in call.edges:
                messages[-1][call.round, edge.key] = call.messages[edge.key].vectors

    monkeypatch.setattr(Recursion, "unroll", spy)
    return messages


def two_agents(edge_input: str) -> Team:
    """planner -> solver -> planner of the next round, in float64."""
    agents: dict[str, Agent] = {}
    for name in ("planner", "solver"):
        agents[name] = in_float64(make_agent(name))
    edges = [
        EdgeConfig(source="planner", target="solver"),
        EdgeConfig(source="solver", target="planner", next_round=True),
    ]
    config = TopologyConfig(name="two", order=list(agents), edges=edges, decoder="solver")
    prompts = {
        "planner": Prompt(agents["planner"], {"user": "<<question>> <<message:solver>> go"}),
        "solver": Prompt(agents["solver"], {"user": "<<question>> <<message:planner>> go"}),
    }
    return Team(agents, prompts, build_topology(config, agents), edge_input)


@pytest.mark.parametrize("edge_input", ["inner", "hidden"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_gradient_is_exact_by_finite_differences(variant, edge_input):
    """Two agents, two rounds, three latent steps: every kind of parameter, inner links too."""
    team = two_agents(edge_input)
    links = make_links(team, variant=variant).double()
    torch.manual_seed(5)
    for p in links.parameters():
        torch.nn.init.normal_(p, mean=0.5 * (p.ndim == 1), std=0.4)
    objective = OuterObjective(team, links, table(make_rows(3)), 2, 3, train_inner=True)
    assert set(objective.groups()) == {
        "inner.planner",
        "inner.solver",
        "outer.planner-solver",
        "outer.solver-planner",
    }
    objective([0, 1, 2], 2).sum().backward()
    for name, p in links.named_parameters():
        direction = torch.randn(p.shape, dtype=p.dtype, generator=torch.Generator().manual_seed(1))
        step, values = 1e-5, []
        for sign in (1, -1):
            with torch.no_grad():
                p.add_(sign * step * direction)
                values.append(objective([0, 1, 2], 2).sum())
                p.sub_(sign * step * direction)
        numeric = (values[0] - values[1]) / (2 * step)
        exact = (p.grad * direction).sum()
        assert exact.abs() > 1e-9, f"{name} gets no gradient"
        torch.testing.assert_close(
            exact, numeric, rtol=2e-5, atol=1e-7, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("end_token", [True, False])
def test_the_loss_is_the_naive_one(agents64, end_token):
    """Answer tokens one by one, each row by itself, with what ends the answer or without."""
    team = make_team(agents64)
    links = make_links(team).double()
    rows = make_rows(3)
    objective = OuterObjective(team, links, table(rows), 2, 3, end_token=end_token)
    decoder, total, count = team.agents["solver"], 0.0, 0
    for row in rows:
        result = unroll(team, links, [row], 2, 3)
        ids = own_text(decoder, row["answer"])
        assert ids[-1] == decoder.end_id
        ids = ids if end_token else ids[:-1]
        for t, token in enumerate(ids):
            prompts = result.decoder.prompts
            batch = embed_prompts(decoder, prompts.prompts, prompts.slots, [ids[:t]])
            logits = decoder.model(inputs_embeds=batch.embeds).logits[0, -1]
            total -= logits.log_softmax(-1)[token].item()
            count += 1
    assert int(objective.count([0, 1, 2]).sum()) == count
    assert objective([0, 1, 2], 2).sum().item() == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize("factor", [1.0, 0.125])
def test_a_clipped_message_gradient_is_the_naive_one(agents64, factor):
    """Row by row, call by call backwards: clip what arrives at a message, then send it on."""
    team = make_team(agents64)
    rows, links, naive = make_rows(4), make_links(team).double(), make_links(team).double()
    naive.load_state_dict(links.state_dict())
    clipped = OuterObjective(team, links, table(rows), 3, 2, clip_message=0.3)
    for part in ([0, 1, 2], [3]):  # a row's bound does not depend on the micro-batch
        (clipped(part, 3).sum() * factor).backward()
    objective, norms = OuterObjective(team, naive, table(rows), 3, 2), []
    for i in range(4):
        messages = []

        def cut(message, edge, round_, messages=messages):
            (sent,) = message.tensors()
            messages.append((sent, sent.detach().requires_grad_()))
            return message.with_tensors([messages[-1][1]])

        cut.measure = lambda loss: None
        objective._clip = cut
        objective([i], 3).sum().backward()
        for sent, received in reversed(messages):
            norm = received.grad.norm().item()
            sent.backward(received.grad * min(1.0, 0.3 / norm))
            norms.append(norm)
    assert min(norms) < 0.3 < max(norms)
    for (name, p), q in zip(links.named_parameters(), naive.parameters(), strict=True):
        if q.grad is not None:
            torch.testing.assert_close(p.grad, q.grad * factor, msg=lambda m, n=name: f"{n}: {m}")


def test_training_and_evaluation_see_the_same_messages(team, monkeypatch):
    """Bit-equal on the CPU in float32: both go through the one unroll."""
    links = make_links(team)
    rows = make_rows(4)
    messages = record_messages(monkeypatch)
    OuterObjective(team, links, table(rows), 3, 4)([0, 1, 2, 3], 3)
    (seen,) = messages
    evaluated = System(team, links, 3, 4).messages(rows)
    assert len(evaluated) == 8
    assert set(seen) == set(evaluated)
    for key, message in evaluated.items():
        assert torch.equal(seen[key], message), key


def test_the_answer_changes_no_message(team, monkeypatch):
    links = make_links(team)
    rows = make_rows(3)
    other = [row | {"answer": " nine ten", "solution": " x", "plan": " y"} for row in rows]
    messages = record_messages(monkeypatch)
    losses = [OuterObjective(team, links, table(r), 2, 3)([0, 1, 2], 2) for r in (rows, other)]
    assert losses[0] != losses[1]
    assert all(torch.equal(messages[0][key], messages[1][key]) for key in messages[0])


@pytest.mark.parametrize("train_inner", [False, True])
def test_every_link_parameter_moves_with_bfloat16_agents(train_inner):
    agents = {n: make_agent(n) for n in TINY}
    agents = {n: dataclasses.replace(a, model=a.model.bfloat16()) for n, a in agents.items()}
    team = make_team(agents)
    links = make_links(team)
    before = {n: p.detach().clone() for n, p in links.named_parameters()}
    objective = OuterObjective(team, links, table(make_rows(4)), 2, 3, train_inner=train_inner)
    optimizer = torch.optim.AdamW(
        [p for g in objective.groups().values() for p in g.parameters()], lr=1e-3, weight_decay=0
    )
    for _ in range(2):
        optimizer.zero_grad()
        objective([0, 1, 2, 3], 2).sum().backward()
        optimizer.step()
    for name, p in links.named_parameters():
        assert p.dtype == torch.float32
        if name.startswith("outer") or train_inner:
            assert p.grad is not None and p.grad.isfinite().all() and p.grad.abs().sum() > 0, name
            assert not torch.equal(p, before[name]), name
        else:
            assert p.grad is None and torch.equal(p, before[name]), name


def test_an_edge_without_gradient_is_frozen(team):
    links = make_links(team)
    objective = OuterObjective(team, links, table(make_rows(2)), 1, 2)
    assert set(objective.groups()) == {"outer.planner-critic", "outer.critic-solver"}
    assert not any(p.requires_grad for p in links.outer["solver-planner"].parameters())
    assert not any(p.requires_grad for p in links.inner.parameters())


def test_an_unused_inner_link_is_not_expected_to_learn(team):
    """With hidden states on the edges and one latent step, no z is ever read."""
    paper = dataclasses.replace(team, edge_input="hidden")
    objective = OuterObjective(paper, make_links(team), table(make_rows(2)), 2, 1, train_inner=True)
    assert not any(name.startswith("inner") for name in objective.groups())


@pytest.mark.parametrize("train_inner", [False, True])
def test_recomputed_calls_give_the_same_gradient(agents64, train_inner):
    team, rows = make_team(agents64), make_rows(3)
    grads = []
    for recompute in (False, True):
        links = make_links(team).double()
        objective = OuterObjective(
            team,
            links,
            table(rows),
            3,
            3,
            train_inner=train_inner,
            clip_message=0.5,
            backward=Backward(recompute=recompute),
        )
        objective([0, 1, 2], 3).sum().backward()
        grads.append({n: p.grad for n, p in links.named_parameters() if p.grad is not None})
    assert len(grads[0]) >= 12
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(("recompute", "least", "most"), [(False, 4.0, 99.0), (True, 1.0, 1.3)])
def test_what_is_kept_for_backward_by_rounds(team, recompute, least, most):
    """Bytes that autograd keeps after the forward, R = 8 over R = 1."""

    def kept(rounds: int) -> int:
        links, storages = make_links(team), {}
        objective = OuterObjective(
            team, links, table(make_rows(4)), 8, 4, backward=Backward(recompute=recompute)
        )

        def keep(tensor):
            storages[tensor.untyped_storage().data_ptr()] = tensor  # held, so no address is reused
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            objective([0, 1, 2, 3], rounds)
        weights = {
            p.untyped_storage().data_ptr()
            for a in team.agents.values()
            for p in a.model.parameters()
        }
        return sum(t.untyped_storage().nbytes() for k, t in storages.items() if k not in weights)

    assert least <= kept(8) / kept(1) <= most


def test_no_graph_where_no_link_is_upstream(team):
    """The first agent's first call keeps nothing: its inner link is frozen, its slot empty."""
    links = make_links(team)
    OuterObjective(team, links, table(make_rows(2)), 2, 3)
    _, first = team.topology.live_calls(2)[0]
    sent = unroll(team, links, make_rows(2), 2, 3).messages
    edge = next(e for e in team.topology.edges if e.source == first)
    node = sent[1, edge.key].grad_fn
    seen, todo = set(), [node]
    while todo:
        one = todo.pop()
        if one is not None and one not in seen:
            seen.add(one)
            todo += [n for n, _ in one.next_functions]
    leaves = {id(n.variable) for n in seen if hasattr(n, "variable")}
    assert leaves == {id(p) for p in links.outer[edge.key].parameters()}
    assert len(seen) < 60
