"""The loop: micro-batches, clipping, dead links, non-finite losses."""

import warnings
from pathlib import Path

import pytest
import torch
from naive import own_text
from tiny import make_links, make_rows, make_team

from rmas_train.config import DataConfig, RuntimeConfig, TrainingConfig
from rmas_train.data.rows import Table
from rmas_train.data.sampling import Sampler
from rmas_train.errors import ConfigError, DeadLinkError, NonFiniteError
from rmas_train.objectives.inner import InnerObjective
from rmas_train.objectives.outer import OuterObjective
from rmas_train.runtime.runtime import Runtime
from rmas_train.training.callbacks import LinkWatch
from rmas_train.training.loop import micro_batches, train
from rmas_train.training.optimizer import DeadLinkWatch, LinkAdamW, clip_factors, gradient_norms

DATA = DataConfig(
    role_texts={"planner": "plan", "critic": "refined_plan", "solver": "solution"},
    feedback_texts={"solver": "feedback"},
)


@pytest.fixture(scope="module")
def runtime():
    return Runtime(RuntimeConfig(device="cpu"))


def table(count=16):
    return Table(Path("rows.jsonl"), make_rows(count))


def run(team, runtime, objective=None, callbacks=(), steps=4, rounds=2, **options):
    """Train for a few steps; (losses, gradient norms, links)."""
    links = make_links(team)
    objective = objective or OuterObjective(team, links, table(), rounds, 2)
    config = TrainingConfig(steps=steps, batch_size=8, lr=1e-2, warmup_steps=1, **options)
    depths = [1 + s % rounds for s in range(steps)]
    sampler = Sampler([None] * 16, depths, 8, seed=0)
    records = []
    train(objective, sampler, config, runtime, [records.append, *callbacks])
    return records, objective.links


def test_micro_batches_change_no_number(agents64, runtime):
    team = make_team(agents64)
    results = []
    for size in (None, 1, 3):
        objective = OuterObjective(team, make_links(team).double(), table(), 2, 2)
        results.append(run(team, runtime, objective, micro_batch_size=size))
    for records, links in results[1:]:
        for a, b in zip(results[0][0], records, strict=True):
            assert a.loss == pytest.approx(b.loss, rel=1e-6)  # summed in float32 for the log
            assert a.gradient_norms == pytest.approx(b.gradient_norms, rel=1e-9)
        for a, b in zip(results[0][1].parameters(), links.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_the_loss_falls_and_agents_stay(team, runtime):
    before = {n: a.fingerprint() for n, a in team.agents.items()}
    records, _ = run(team, runtime, steps=40, rounds=1)
    assert records[-1].loss < 0.7 * records[0].loss
    assert {n: a.fingerprint() for n, a in team.agents.items()} == before


def test_a_broken_graph_is_a_dead_link(team, runtime):
    """One edge is detached on purpose; the one behind it goes on learning."""
    links = make_links(team)
    links.outer["planner-critic"].register_forward_hook(lambda module, args, out: out.detach())
    objective = OuterObjective(team, links, table(), 2, 2)
    with pytest.raises(DeadLinkError, match="planner-critic.*first 10 optimizer steps") as caught:
        run(team, runtime, objective, [LinkWatch(objective.expected_links)], steps=30)
    assert "outer.critic-solver" in str(caught.value)


def test_a_graph_that_is_cut_before_every_link_says_so_at_once(team, runtime):
    links = make_links(team)
    links.outer["critic-solver"].register_forward_hook(lambda module, args, out: out.detach())
    with pytest.raises(DeadLinkError, match="no trainable link reaches the loss at rounds=1"):
        run(team, runtime, OuterObjective(team, links, table(), 2, 2))


def test_a_link_that_the_depth_cannot_reach_is_not_called_dead():
    seen = DeadLinkWatch(lambda rounds: {"a", "b"} if rounds > 1 else {"a"})
    for _ in range(50):
        seen(1, {"a": 1.0, "b": 0.0})
    for _ in range(9):
        seen(2, {"a": 1.0, "b": 0.0})
    with pytest.raises(DeadLinkError, match="link b"):
        seen(2, {"a": 1.0, "b": 0.0})


def test_a_weak_link_warns_by_name():
    seen = DeadLinkWatch(lambda rounds: {"a", "b", "c"})
    with pytest.warns(UserWarning, match="link c gets less"):
        for _ in range(10):
            seen(1, {"a": 1.0, "b": 2.0, "c": 1e-7})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seen(1, {"a": 1.0, "b": 2.0, "c": 1e-7})  # said once


def test_clipping_by_link_and_globally():
    groups = {n: torch.nn.Linear(3, 1, bias=False) for n in ("big", "small", "idle")}
    for name, size in (("big", 30.0), ("small", 0.4)):
        groups[name].weight.grad = torch.tensor([[size, 0.0, 0.0]])
    norms = gradient_norms(groups, lambda p: p.grad)
    assert norms == pytest.approx({"big": 30.0, "small": 0.4, "idle": 0.0})
    factors = clip_factors(norms, 1.0, "link")
    assert factors == pytest.approx({"big": 1 / 30, "small": 1.0, "idle": None})
    factors = clip_factors(norms, 0.5, "global")
    total = sum((norms[n] * (factors[n] or 0)) ** 2 for n in norms) ** 0.5
    assert total == pytest.approx(0.5)
    assert clip_factors(norms, 0, "link") == {"big": 1.0, "small": 1.0, "idle": None}


def test_links_are_updated_as_adamw_would_and_idle_ones_stay():
    """Against torch's AdamW on gradients clipped by hand."""
    torch.manual_seed(0)
    ours = {n: torch.nn.Linear(4, 3) for n in ("a", "b")}
    theirs = {n: torch.nn.Linear(4, 3) for n in ours}
    for n, link in theirs.items():
        link.load_state_dict(ours[n].state_dict())
    config = TrainingConfig(lr=0.1, weight_decay=0.01)
    optimizer = LinkAdamW(ours, config)
    parameters = [p for link in theirs.values() for p in link.parameters()]
    plain = torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.01, betas=(0.9, 0.95))
    for step in range(4):
        active = ["a", "b"] if step % 2 == 0 else ["a"]
        for n in ours:
            for p, q in zip(ours[n].parameters(), theirs[n].parameters(), strict=True):
                grad = 3 * torch.randn_like(p)
                p.grad, q.grad = (grad.clone(), grad.clone()) if n in active else (None, None)
        norms = gradient_norms(ours, lambda p: p.grad)
        optimizer.set_factors(clip_factors(norms, 1.0, "link"))
        optimizer.step()
        for n in active:
            torch.nn.utils.clip_grad_norm_(theirs[n].parameters(), 1.0)
        plain.step()
    for n in ours:
        for p, q in zip(ours[n].parameters(), theirs[n].parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


def test_a_loss_that_is_not_finite_stops_before_the_update(team, runtime):
    links = make_links(team)
    links.outer["critic-solver"].register_forward_hook(lambda module, args, out: out * float("nan"))
    before = {n: p.detach().clone() for n, p in links.named_parameters()}
    with pytest.raises(NonFiniteError, match="step 0: loss nan"):
        run(team, runtime, OuterObjective(team, links, table(), 2, 2))
    assert all(torch.equal(p, before[n]) for n, p in links.named_parameters())


def test_batches_that_cannot_be_shared_are_refused():
    config = TrainingConfig(batch_size=1)
    with pytest.raises(ConfigError, match="less than one row per process"):
        micro_batches([0], config, 2, (2, 1))
    with pytest.raises(ConfigError, match="multiple of"):
        micro_batches([0, 1, 2], TrainingConfig(micro_batch_size=1), 2, (2, 1))


@pytest.mark.parametrize("states", ["teacher_forced", "rollout"])
def test_the_inner_stage_learns_each_agents_link_by_itself(team, runtime, states):
    """The cosine loss falls and outer links stay as they are."""
    objective = InnerObjective(team, make_links(team), table(), DATA, states, 3)
    start = {n: p.detach().clone() for n, p in objective.links.named_parameters()}
    records, links = run(team, runtime, objective, steps=30)
    assert records[-1].loss < records[0].loss - 0.3
    for name, p in links.named_parameters():
        assert torch.equal(p, start[name]) == name.startswith("outer"), name


def test_the_inner_loss_is_the_naive_one(team):
    """One row, one agent: 1 - cos(inner(h_t), e(y_t+1)) over its own tokens and the end token."""
    links = make_links(team)
    rows = Table(Path("rows.jsonl"), make_rows(1))
    objective = InnerObjective(team, links, rows, DATA)
    agent, total = team.agents["critic"], 0.0
    prompt = (
        f"<|s|>user {rows.rows[0]['question']} note {rows.rows[0]['plan']} go<|e|><|s|>assistant"
    )
    pieces = prompt.split(rows.rows[0]["plan"])
    ids = [
        t
        for text in (pieces[0], rows.rows[0]["plan"], pieces[1])
        for t in agent.tokenizer(text)["input_ids"]
    ]
    own = own_text(agent, rows.rows[0]["refined_plan"])
    for t, token in enumerate(own):
        hidden = agent.model.model(torch.tensor([ids + own[:t]])).last_hidden_state[0, -1]
        out = links.inner["critic"](hidden)
        total += 1 - torch.cosine_similarity(out, agent.embed(torch.tensor(token)), dim=0).item()
    assert objective([0], 1)[1].item() == pytest.approx(total, rel=1e-4)
    assert objective.count([0])[1] == len(own)
