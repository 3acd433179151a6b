"""Each gradient mode against a naive statement of the terms that it keeps."""

import dataclasses

import naive
import pytest
import torch
from tiny import make_links, make_rows, make_team
from transformers import DynamicCache
from unrolling import unroll

from rmas_train.engine.rollout import Gradient
from rmas_train.errors import AgentError
from rmas_train.objectives.outer import OuterObjective
from rmas_train.objectives.outer_options import Backward

M = 5


def forward(agent, embeds_LD):
    return agent.model.model(inputs_embeds=embeds_LD[None], use_cache=False).last_hidden_state[0]


def first_step(agent, inner, embeds_LD, _steps):
    """The exact rollout, z_2 and later detached."""
    hidden, latents = naive.rollout(agent, inner, embeds_LD, M)
    keep = torch.tensor([True] + [False] * (M - 1))[:, None]
    return (torch.where(keep, x, x.detach()) for x in (hidden, latents))


def parallel(agent, inner, embeds_LD, steps):
    """All positions at once, from detached latents, ``steps`` times over its own results."""
    latents = naive.rollout(agent, inner, embeds_LD, M)[1].detach()
    for _ in range(steps):
        hidden = forward(agent, torch.cat([embeds_LD, latents[:-1]]))[-M:]
        latents = inner(hidden)
    return hidden, latents


def window(agent, inner, embeds_LD, steps):
    """With the library's cache: what earlier windows left there is detached."""
    cache, hidden, latents = DynamicCache(), [], []
    step_LD = embeds_LD
    for t in range(M):
        out = agent.model.model(inputs_embeds=step_LD[None], past_key_values=cache)
        hidden.append(out.last_hidden_state[0, -1])
        latents.append(inner(hidden[-1]))
        step_LD = latents[-1][None]
        if (t + 1) % steps == 0:
            step_LD, n = step_LD.detach(), len(embeds_LD)
            for layer in cache.layers:
                for name in ("keys", "values"):
                    x = getattr(layer, name)
                    cut = torch.cat([x[:, :, :n], x[:, :, n:].detach()], dim=2)
                    setattr(layer, name, cut)
    return torch.stack(hidden), torch.stack(latents)


CASES = [
    ("first_step", 1, first_step),
    ("parallel", 1, parallel),
    ("parallel", 2, parallel),
    ("parallel", 3, parallel),
    ("window", 1, window),
    ("window", 2, window),
    ("window", 4, window),
]


@pytest.mark.parametrize("edge_input", ["inner", "hidden"])
@pytest.mark.parametrize(("mode", "steps", "statement"), CASES)
def test_a_mode_keeps_exactly_the_terms_that_it_states(
    mode, steps, statement, edge_input, agents64
):
    team, rows = make_team(agents64, edge_input), make_rows(3)
    links, plain = make_links(team).double(), make_links(team).double()
    plain.load_state_dict(links.state_dict())
    backward = Backward(Gradient(mode, steps))
    # Not the answer's loss, but a fixed projection of every message: each term counts.
    sent = unroll(team, links, rows, 2, M, backward=backward).messages
    generator = torch.Generator().manual_seed(3)
    weights = {k: torch.randn(m.shape, dtype=m.dtype, generator=generator) for k, m in sent.items()}
    sum((sent[k] * w).sum() for k, w in weights.items()).backward()
    total = 0.0
    for i, row in enumerate(rows):
        messages, _ = naive.unroll(team, plain, row, 2, M, roll=(statement, steps))
        for key, message in messages.items():
            torch.testing.assert_close(sent[key][i], message, rtol=1e-9, atol=1e-10)
            total = total + (message * weights[key][i]).sum()
    total.backward()
    for (name, p), q in zip(links.named_parameters(), plain.parameters(), strict=True):
        if q.grad is None or not q.grad.any():
            assert p.grad is None or not p.grad.any(), name
        else:
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-7, atol=1e-9, msg=name)


def gradient(team, table, backward, rounds=3, **options):
    links = make_links(team).double()
    objective = OuterObjective(
        team, links, table(make_rows(4)), 3, M, backward=backward, train_inner=True, **options
    )
    objective([0, 1, 2, 3], rounds).sum().backward()
    return torch.cat([p.grad.flatten() for p in links.parameters() if p.grad is not None])


@pytest.mark.parametrize("steps", [M, M + 3])
def test_parallel_over_the_whole_latent_length_is_exact(agents64, table, steps):
    team = make_team(agents64)
    exact = gradient(team, table, Backward(), clip_message=0.5)
    swept = gradient(team, table, Backward(Gradient("parallel", steps)), clip_message=0.5)
    assert (swept - exact).norm() < 1e-10 * exact.norm()
    fewer = gradient(team, table, Backward(Gradient("parallel", M - 1)), clip_message=0.5)
    assert (fewer - exact).norm() > 1e-9 * exact.norm()


def test_a_window_over_the_whole_latent_length_is_exact(agents64, table):
    team = make_team(agents64)
    exact = gradient(team, table, Backward())
    assert torch.equal(exact, gradient(team, table, Backward(Gradient("window", M))))


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize(("last", "detached"), [(1, 6), (2, 3)])
def test_gradient_rounds_drop_what_was_sent_earlier(agents64, table, last, detached, checkpoint):
    """Three messages are sent in each round."""
    team = make_team(agents64)
    got = gradient(team, table, Backward(rounds=last, recompute=checkpoint))
    links, seen = make_links(team).double(), []
    objective = OuterObjective(team, links, table(make_rows(4)), 3, M, train_inner=True)

    def cut(message, edge, round_):
        seen.append(message)
        (sent,) = message.tensors()
        return message.with_tensors([sent.detach()]) if len(seen) <= detached else message

    cut.measure = lambda loss: None
    objective._clip = cut
    objective([0, 1, 2, 3], 3).sum().backward()
    grads = [p.grad.flatten() for p in links.parameters() if p.grad is not None]
    kept = torch.cat([g for g in grads if g.any()])
    assert (got[got != 0] - kept[kept != 0]).norm() < 1e-10 * kept.norm()


def test_links_that_no_recent_round_uses_are_frozen(agents64, table):
    team = make_team(agents64)
    for last, expected in ((1, 2), (2, 3)):
        objective = OuterObjective(
            team, make_links(team), table(make_rows(2)), 3, 2, backward=Backward(rounds=last)
        )
        assert len(objective.groups()) == expected


def test_windows_need_an_agent_that_attends_to_blocks(agents, table):
    agents["critic"] = dataclasses.replace(agents["critic"], attends_to_blocks=False)
    team = make_team(agents)
    backward = Backward(Gradient("window", 1))
    objective = OuterObjective(team, make_links(team), table(make_rows(2)), 2, 3, backward=backward)
    with pytest.raises(AgentError, match="agent critic.*use training.outer.gradient=full"):
        objective([0, 1], 2)
