"""Each lever of the outer stage against a naive statement of it, in float64."""

import copy
from dataclasses import replace

import naive
import pytest
import torch
from tiny import make_links, make_rows, make_team
from torch.nn import functional as F

from rmas_train.channels import TextChannel
from rmas_train.data.rows import table_of
from rmas_train.engine.rollout import Gradient
from rmas_train.objectives.message_noise import MessageNoise
from rmas_train.objectives.outer import OuterObjective
from rmas_train.objectives.outer_options import Aids, Backward
from rmas_train.recursion import Recursion

M, R = 3, 3
WHOLE = Backward(gradient=Gradient("parallel", M))


def objective(team, links, rows, aids=None, **options):
    table = table_of(rows, "rows")
    return OuterObjective(team, links, table, R, M, aids=aids or Aids(), **options)


def gradients(loss, links):
    named = [(n, p) for n, p in links.named_parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, [p for _, p in named], allow_unused=True)
    return {n: g for (n, _), g in zip(named, found, strict=True) if g is not None}


def assert_same(ours, naively, links):
    torch.testing.assert_close(ours, naively, rtol=1e-9, atol=1e-9)
    one, other = gradients(ours, links), gradients(naively, links)
    assert one.keys() == other.keys() and one
    for name, gradient in one.items():
        torch.testing.assert_close(gradient, other[name], rtol=1e-7, atol=1e-9)


@pytest.fixture
def made(agents64):
    team = make_team(agents64)
    return team, make_links(team).double(), make_rows(4)


@pytest.mark.parametrize("backward", [Backward(), Backward(recompute=True), WHOLE])
def test_a_residual_message_is_added_to_the_one_before(made, backward):
    team, links, rows = made
    team = replace(team, message_update="residual")
    ours = objective(team, links, rows, backward=backward)(range(4), R)[0]
    assert_same(ours, sum(naive.loss(team, links, row, R, M) for row in rows), links)
    plain = objective(replace(team, message_update="replace"), links, rows)(range(4), R)[0]
    assert abs(plain - ours) > 1e-3


def test_the_first_round_of_a_residual_system_is_that_of_any_other(made):
    team, links, rows = made
    residual = replace(team, message_update="residual")
    one, other = (objective(t, links, rows)(range(4), 1) for t in (team, residual))
    assert torch.equal(one, other)


def test_earlier_rounds_count_on_rows_within_reach(made):
    team, links, rows = made
    ours = objective(team, links, rows, Aids(earlier_rounds=0.3))(range(4), R)[0]
    naively = sum(naive.loss(team, links, row, R, M) for row in rows)
    for row in rows:
        for r in range(row["rounds_needed"], R):
            naively = naively + 0.3 / (R - 1) * naive.loss(team, links, row, r, M)
    assert {row["rounds_needed"] for row in rows} == {1, 2}
    assert_same(ours, naively, links)


def log_probabilities(team, links, row, rounds):
    _, inbox = naive.unroll(team, links, row, rounds, M)
    agent = team.agents[team.topology.decoder]
    embeds = naive.prompt_embeds(team, team.topology.decoder, row, rounds, inbox)
    found = []
    for token in naive.own_text(agent, row["answer"]):
        logits = agent.model(inputs_embeds=embeds[None], use_cache=False).logits[0, -1]
        found.append(logits.log_softmax(-1))
        embeds = torch.cat([embeds, agent.embed(torch.tensor([token]))])
    return torch.stack(found)


def test_a_shallow_system_learns_from_its_own_deeper_rounds(made):
    team, links, rows = made
    made_ = objective(team, links, rows, Aids(self_distill=0.7))
    naively = torch.zeros(())
    for row in rows:
        teacher = log_probabilities(team, links, row, R).detach()
        student = log_probabilities(team, links, row, 1)
        kl = (teacher.exp() * (teacher - student)).sum()
        naively = naively + naive.loss(team, links, row, 1, M) + 0.7 * kl
    assert_same(made_(range(4), 1)[0], naively, links)
    deep = objective(team, links, rows)(range(4), R)
    assert torch.equal(made_(range(4), R), deep), "at full depth there is nobody to learn from"


def texts_sent(team, row, rounds, channel):
    """What each target reads of text recursion, one row by itself."""
    found = {}
    for call in Recursion(team, channel).unroll([row], rounds):
        for edge in call.edges:
            text = call.messages[edge.key].texts[0]
            agent = team.agents[edge.target]
            found[call.round, edge.key] = agent.tokenizer(text, add_special_tokens=False)[
                "input_ids"
            ]
    return found


def test_messages_learn_from_text_recursions(made):
    team, links, rows = made
    channel = TextChannel(max_new_tokens=4)
    made_ = objective(team, links, rows, Aids(text_messages=0.5, text=channel))
    ours = made_(range(4), 2)
    assert made_.count(range(4)).tolist()[1] == 4
    naively = []
    for row in rows:
        messages, _ = naive.unroll(team, links, row, 2, M)
        texts = texts_sent(team, row, 2, channel)
        assert texts.keys() == messages.keys() and any(map(len, texts.values()))
        for (r, key), vectors in messages.items():
            ids = texts[r, key][:M]
            if ids:
                wanted = team.agents[key.split("-")[1]].embed(torch.tensor(ids))
                cosine = F.cosine_similarity(vectors[: len(ids)], wanted.double(), dim=-1)
                naively.append((1 - cosine).mean() / len(messages))
    assert_same(ours[1], 0.5 * sum(naively), links)
    assert torch.equal(ours[0], objective(team, links, rows)(range(4), 2)[0])


def test_noise_depends_on_row_and_step_and_has_its_size(made):
    team, links, _ = made
    rows = make_rows(6)
    made_ = objective(team, links, rows, Aids(message_noise=0.5, seed=1))
    whole = made_(range(6), 2)
    parts = made_([0, 1], 2) + made_([2, 3, 4, 5], 2)
    torch.testing.assert_close(whole, parts)
    made_.step = 1
    assert not torch.allclose(made_(range(6), 2), whole)
    edge = team.topology.edges[0]
    noise = MessageNoise(0.5, 1, 0, list(range(6)))
    from rmas_train.engine.inputs import LatentMessage

    sent = LatentMessage(3 * torch.randn(6, 50, 40))
    added = noise(sent, edge, 1).vectors - sent.vectors
    assert added.std() / sent.vectors.std() == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("update", ["replace", "residual"])
@pytest.mark.parametrize("backward", [Backward(), Backward(recompute=True)])
@pytest.mark.parametrize("micro", [[[0, 1, 2, 3]], [[0], [1, 2, 3]]])
def test_the_profile_is_each_rounds_share_of_the_gradient(made, update, backward, micro):
    """Naively: links of their own for each round, with the same values."""
    team, links, rows = made
    team = replace(team, message_update=update)
    made_ = objective(team, links, rows, backward=backward)
    made_.profile.is_on = True
    for part in micro:
        (made_(part, R).sum() / 7).backward()
    found = {(x["round"], x["edge"]): x for x in made_.profile.collect(lambda x: x)}
    own = [copy.deepcopy(links) for _ in range(R)]
    for each in own:
        each.zero_grad()
    (sum(naive.loss(team, own, row, R, M) for row in rows) / 7).backward()
    assert len(found) == 8
    sent = [naive.unroll(team, links, row, R, M)[0] for row in rows]
    for (r, edge), norms in found.items():
        vectors = torch.stack([messages[r, edge] for messages in sent])
        assert norms["norm"] == pytest.approx(vectors.norm(dim=-1).mean().item(), rel=1e-5)
        centred = vectors - vectors.mean(0)
        naively = (centred.pow(2).sum() / vectors.pow(2).sum()).item()
        assert norms["variation"] == pytest.approx(naively, rel=1e-4)
        grads = [p.grad for p in own[r - 1].outer[edge].parameters()]
        naively = torch.nn.utils.get_total_norm(grads)
        assert norms["parameters"] == pytest.approx(naively.item(), rel=1e-6)
    for edge, link in links.outer.items():
        for name, p in link.named_parameters():
            parts = [dict(each.outer[edge].named_parameters())[name].grad for each in own]
            torch.testing.assert_close(p.grad, sum(g for g in parts if g is not None))


def test_the_profiles_message_norms_are_the_messages_gradients(made):
    team, links, rows = made
    made_ = objective(team, links, rows)
    made_.profile.is_on = True
    made_(range(4), R).sum().backward()
    found = {(x["round"], x["edge"]): x["message"] for x in made_.profile.collect(lambda x: x)}
    squares = dict.fromkeys(found, 0.0)
    for row in rows:
        messages, inbox = naive.unroll(team, links, row, R, M)
        agent = team.agents["solver"]
        embeds = naive.prompt_embeds(team, "solver", row, R, inbox)
        answer = naive.own_text(agent, row["answer"])
        whole = torch.cat([embeds, agent.embed(torch.tensor(answer))])
        logits = agent.model(inputs_embeds=whole[None]).logits[0, -len(answer) - 1 : -1]
        loss = F.cross_entropy(logits, torch.tensor(answer), reduction="sum")
        for key, gradient in zip(
            messages, torch.autograd.grad(loss, list(messages.values())), strict=True
        ):
            squares[key] += gradient.pow(2).sum().item()
    for key, norm in found.items():
        assert norm == pytest.approx(squares[key] ** 0.5, rel=1e-5)


def test_a_profile_that_is_off_holds_nothing(made):
    team, links, rows = made
    made_ = objective(team, links, rows)
    made_(range(4), R).sum().backward()
    assert made_.profile.collect(lambda x: x) == []


@pytest.mark.parametrize("logits_bytes", [2**26, 1])
def test_the_mean_over_rows_counts_each_row_once(made, logits_bytes, monkeypatch):
    monkeypatch.setattr("rmas_train.engine.answer.LOGITS_BYTES", logits_bytes)
    team, links, rows = made
    for row, text in zip(rows, (" one", " two three", " red green blue", " go"), strict=True):
        row["answer"] = text
    own = objective(team, links, rows, row_means=True)
    lengths = [len(ids) for ids in own.answers(range(4))]
    assert len(set(lengths)) == 3 and own.count(range(4)).tolist() == [4]
    losses = [naive.loss(team, links, row, R, M) for row in rows]
    naively = sum(loss / length for loss, length in zip(losses, lengths, strict=True))
    assert_same(own(range(4), R)[0], naively, links)


def test_the_mean_over_rows_is_that_of_every_loss_on_answers(made):
    team, links, rows = made
    rows[0]["answer"], rows[1]["answer"] = " one two three", " red"
    aids = Aids(earlier_rounds=0.3, self_distill=0.7)
    together = objective(team, links, rows[:2], aids, row_means=True)(range(2), 2)[0]
    parts = []
    for row in rows[:2]:
        alone = objective(team, links, [row], aids)
        parts.append(alone([0], 2)[0] / len(alone.answers([0])[0]))
    assert_same(together, sum(parts), links)
