"""The calls that an unroll yields: who, when, what crosses, and what can be asked of them."""

import naive
import pytest
import torch
from tiny import make_links, make_rows, make_team

from rmas_train.agents.prompts import tokenise_whole
from rmas_train.channels import LatentChannel, TextChannel
from rmas_train.engine.inputs import LatentMessage, TextMessage
from rmas_train.engine.rollout import Gradient
from rmas_train.recursion import Recursion, last_call

M = 3


def recursion(team, links, **options):
    return Recursion(team, LatentChannel(links, M, team.edge_input, **options))


def test_calls_come_in_order_with_all_that_they_know(team):
    links = make_links(team)
    seen = []
    for call in recursion(team, links).unroll(make_rows(2), 2):
        arrived = {source: m.vectors.shape for source, m in call.inbox.items()}
        assert all(shape == (2, M, team.agents[call.agent].width) for shape in arrived.values())
        sent = sorted(call.messages)
        assert sent == sorted(edge.key for edge in call.edges)
        seen.append((call.round, call.agent, sorted(arrived), sent))
    assert seen == [
        (1, "planner", [], ["planner-critic"]),
        (1, "critic", ["planner"], ["critic-solver"]),
        (1, "solver", ["critic"], ["solver-planner"]),
        (2, "planner", ["solver"], ["planner-critic"]),
        (2, "critic", ["planner"], ["critic-solver"]),
        (2, "solver", ["critic"], []),
    ]


def test_a_call_runs_when_it_is_asked_and_no_earlier(team):
    """Whoever stops after the decoder's first call pays for no rollout of the decoder."""
    ran = []

    class Watched(LatentChannel):
        def send(self, call):
            ran.append((call.round, call.agent))
            return super().send(call)

    calls = Recursion(team, Watched(make_links(team), M)).unroll(make_rows(2), 3)
    for call in calls:
        if call.agent == "solver":
            call.write(2)
            break
    assert ran == [(1, "planner"), (1, "critic")]
    assert call.hidden.shape == call.latents.shape == (2, M, team.agents["solver"].width)
    assert ran[-1] == (1, "solver"), "asked for its states, it runs once"


@pytest.mark.parametrize("recompute", [False, True])
def test_the_answers_loss_in_every_round_is_the_naive_one(agents64, recompute):
    """And so is the gradient of their sum."""
    team, rows = make_team(agents64), make_rows(3)
    links, plain = make_links(team).double(), make_links(team).double()
    plain.load_state_dict(links.state_dict())
    answers = tokenise_whole(team.agents["solver"], [row["answer"] for row in rows])
    losses = {}
    unroll = recursion(team, links, recompute=recompute).unroll(rows, 3, answer_rounds=(1, 2, 3))
    for call in unroll:
        if call.agent == "solver":
            losses[call.round] = call.answer_loss(answers)
    assert sorted(losses) == [1, 2, 3]
    total = 0
    for round_, loss in losses.items():
        exact = sum(naive.loss(team, plain, row, round_, M) for row in rows)
        torch.testing.assert_close(loss, exact, rtol=1e-9, atol=0)
        total = total + exact
    sum(losses.values()).backward()
    total.backward()
    for (name, p), q in zip(links.named_parameters(), plain.named_parameters(), strict=True):
        if name.startswith("outer"):
            torch.testing.assert_close(p.grad, q[1].grad, rtol=1e-7, atol=1e-10, msg=name)


def test_a_decoder_without_feedback_can_answer_in_any_round(agents):
    """Its calls of earlier rounds reach nothing, and are made only where they are asked for."""
    from tiny import SEQUENTIAL, TopologyConfig

    from rmas_train.recursion import Team
    from rmas_train.topology import build_topology

    edges = [*SEQUENTIAL.edges[:2]]
    config = TopologyConfig(name="open", order=SEQUENTIAL.order, edges=edges, decoder="solver")
    team = make_team(agents)
    open_team = Team(agents, team.prompts, build_topology(config, agents))
    links = make_links(team)
    rounds = [c.round for c in recursion(open_team, links).unroll(make_rows(1), 3)]
    assert rounds == [3, 3, 3]
    asked = recursion(open_team, links).unroll(make_rows(1), 3, answer_rounds=[1, 3])
    assert [c.round for c in asked] == [1, 1, 1, 3, 3, 3]


@pytest.mark.parametrize(
    "options",
    [{}, {"recompute": True}, {"gradient": Gradient("parallel", M)}],
    ids=["plain", "recompute", "parallel"],
)
def test_states_and_latents_carry_the_exact_gradient(agents64, options):
    """A loss on hidden states and latents of every call, not on the answer."""
    team, rows = make_team(agents64), make_rows(2)
    grads = []
    for some in ({}, options):
        links = make_links(team).double()
        total = 0
        for call in recursion(team, links, **some).unroll(rows, 2):
            if call.edges:
                total = total + call.hidden.sin().sum() + call.latents.cos().sum()
        total.backward()
        grads.append(torch.cat([p.grad.flatten() for p in links.parameters()]))
    assert grads[0].norm() > 0
    assert (grads[0] - grads[1]).norm() <= 1e-10 * grads[0].norm()


def test_an_intervention_gets_message_edge_and_round(team):
    """What it gives back arrives; what was sent stays as it was."""
    told = []

    def double_in_round_2(message, edge, round_):
        told.append((round_, edge.key, type(message)))
        return message.with_tensors([2 * message.vectors]) if round_ == 2 else message

    calls = list(
        recursion(team, make_links(team)).unroll(
            make_rows(2), 2, interventions=[double_in_round_2, lambda m, *_: m]
        )
    )
    assert [t[:2] for t in told] == [(c.round, e.key) for c in calls for e in c.edges]
    assert {t[2] for t in told} == {LatentMessage}
    by_id = {(c.round, c.agent): c for c in calls}
    for round_, factor in ((1, 1), (2, 2)):
        sent = by_id[round_, "planner"].messages["planner-critic"].vectors
        arrived = by_id[round_, "critic"].inbox["planner"].vectors
        assert torch.equal(arrived, factor * sent)


def test_text_crosses_the_same_edges(team):
    """Text recursion is the same unroll with messages of another kind."""
    channel = TextChannel(3, translations={"planner-critic": {"go": "so"}})
    calls = list(Recursion(team, channel).unroll(make_rows(3), 2))
    assert [c.agent for c in calls] == ["planner", "critic", "solver"] * 2
    for call in calls[:-1]:
        (message,) = call.messages.values()
        assert isinstance(message, TextMessage) and len(message.texts) == 3
        assert call.hidden is None and message.tensors() == ()
        assert message.rows([2, 0]).texts == [message.texts[2], message.texts[0]]
    arrived = calls[-1].inbox["critic"].slot(team.agents["solver"])
    assert calls[-1].prompts.slots["critic"].ids == arrived.ids
    assert last_call(iter(calls)) is calls[-1]
