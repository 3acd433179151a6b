"""Attribution, health, lens, probes and depth against naive statements and planted facts."""

import itertools
import json
from functools import partial

import naive
import numpy as np
import pytest
import torch
from scipy import optimize, stats
from tiny import make_links, make_rows, make_team
from torch.nn import functional as F

from rmas_train.analysis.ablation import KINDS, Means, credit, derangement, drops
from rmas_train.analysis.agreement import agreement
from rmas_train.analysis.attribution import Attribution, influence
from rmas_train.analysis.bench import Bench
from rmas_train.analysis.depth import Answers, Depth, answers_by_round, first, stopping_curves
from rmas_train.analysis.health import effective_rank, message_health, row_cosine, variation
from rmas_train.analysis.lens import answer_cosines, nearest_tokens
from rmas_train.analysis.probes import probe
from rmas_train.analysis.text_attribution import weights
from rmas_train.channels import TextChannel
from rmas_train.config import Config
from rmas_train.config.evaluation import AnalysisConfig
from rmas_train.engine.answer import mean_entropies
from rmas_train.errors import ConfigError
from rmas_train.recursion import Recursion
from rmas_train.runs.stop_rule import DECAY, StopRule, fit, read_rule
from rmas_train.systems.latent import System
from rmas_train.systems.stopping import StoppingSystem, Trained
from rmas_train.systems.stopping import agreement as agreement_rule
from rmas_train.systems.stopping import entropy as entropy_rule

M, R = 2, 2


@pytest.fixture
def bench(agents64):
    team = make_team(agents64)
    config = Config(name="x", rounds=R, latent_length=M, analysis=AnalysisConfig(target="loss"))
    config.evaluation.batch_size, config.evaluation.max_new_tokens = 3, 4
    links = make_links(team).double().requires_grad_(False)
    return Bench(config, team, links, make_rows(6))


def scores(bench, row, ids, changed=None, odds=False):
    """Mean log p of these tokens, one whole forward each; ``changed``: place -> message.

    ``odds``: of log(p / (1 - p)).
    """
    inbox, messages = {}, {}
    team, calls = bench.team, bench.team.topology.live_calls(R)
    for r, name in calls[:-1]:
        embeds = naive.prompt_embeds(team, name, row, r, inbox.get((r, name), {}))
        _, z = naive.rollout(team.agents[name], bench.links.inner[name], embeds, M)
        for edge in team.topology.outgoing(name):
            if (r + edge.next_round, edge.target) in calls:
                sent = bench.links.outer[edge.key](z)
                if changed and (r, edge.key) in changed:
                    sent = changed[r, edge.key](sent)
                messages[r, edge.key] = sent
                inbox.setdefault((r + edge.next_round, edge.target), {})[name] = sent
    agent = bench.decoder
    embeds = naive.prompt_embeds(team, team.topology.decoder, row, R, inbox[calls[-1]])
    total = 0.0
    for token in ids:
        logits = agent.model(inputs_embeds=embeds[None], use_cache=False).logits[0, -1]
        p = logits.softmax(-1)[token]
        total = total + ((p / (1 - p)).log() if odds else p.log()) / len(ids)
        embeds = torch.cat([embeds, agent.embed(torch.tensor([token]))])
    return total, messages


def test_influence_is_the_gradient_of_the_score_at_every_message(bench):
    rows = bench.rows[:3]
    ids = bench.gold(rows)
    places, gradients, vectors = influence(bench, rows, ids)
    assert len(places) == 5
    for i, row in enumerate(rows):
        leaf = {place: (lambda sent: sent.detach().requires_grad_()) for place in places[:1]}
        total, messages = scores(bench, row, ids[i], leaf, odds=True)
        found = torch.autograd.grad(total, [messages[place] for place in places[:1]])
        torch.testing.assert_close(gradients[0][i], found[0], rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(vectors[0][i], messages[places[0]])
        h = 1e-6  # every later place, by a difference in one direction
        for k, place in enumerate(places):
            direction = torch.randn(vectors[k][i].shape, dtype=torch.float64)
            up, down = (
                scores(bench, row, ids[i], {place: lambda x, by=s * h * direction: x + by}, True)[0]
                for s in (1, -1)
            )
            slope = (gradients[k][i] * direction).sum()
            assert slope.item() == pytest.approx(((up - down) / (2 * h)).item(), rel=1e-4, abs=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_an_ablation_changes_one_message_and_nothing_else(bench, kind):
    targets = [bench.gold(rows) for rows in bench.batches()]
    every = [ids for batch in targets for ids in batch]
    places = [(1, "planner-critic"), (1, "solver-planner"), (2, "critic-solver")]
    found = drops(bench, targets, places, Means(bench).change(kind))
    messages = [scores(bench, row, ids)[1] for row, ids in zip(bench.rows, every, strict=True)]
    for i, row in enumerate(bench.rows):
        ids = every[i]
        batch = 3 * (i // 3)
        other = messages[batch + (i - batch + 1) % 3]
        for k, place in enumerate(places):
            new = {
                "zero": lambda sent: sent * 0,
                "mean": lambda _, p=place: torch.stack([m[p] for m in messages]).mean(0),
                "shuffled": lambda _, p=place, o=other: o[p],
            }[kind]
            whole, changed = (scores(bench, row, ids, c)[0] for c in (None, {place: new}))
            torch.testing.assert_close(found[i, k], whole - changed, rtol=1e-6, atol=1e-8)


def test_credit_is_the_own_score_less_the_mean_of_the_others(bench):
    rows = bench.rows[:3]
    bench.rows = rows
    ids = bench.gold(rows)
    place = (1, "planner-critic")
    found = credit(bench, [ids], [place], alternatives=2)
    messages = [scores(bench, row, i)[1] for row, i in zip(rows, ids, strict=True)]
    for i, row in enumerate(rows):
        others = [derangement(3, bench.config.seed, n)[i] for n in range(2)]
        values = [
            scores(bench, row, ids[i], {place: lambda _, o=o: messages[o][place]})[0]
            for o in others
        ]
        naively = scores(bench, row, ids[i])[0] - torch.stack(values).mean()
        torch.testing.assert_close(found[i, 0], naively, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("count", [2, 3, 7])
def test_no_row_gets_its_own_message(count):
    for number in range(5):
        order = derangement(count, 0, number)
        assert sorted(order) == list(range(count))
        assert all(i != j for i, j in enumerate(order))


def test_log_odds_are_of_p_against_all_else(bench):
    rows = bench.rows[:3]
    call = bench.last(rows)
    ids = bench.gold(rows)
    found = bench.scores(call, ids, odds=True)
    for i, states in enumerate(call.answer_states(ids)):
        p = bench.decoder.logits(states).softmax(-1)
        own = p[torch.arange(len(ids[i])), ids[i]]
        torch.testing.assert_close(found[i], (own / (1 - own)).log().mean(), rtol=1e-8, atol=1e-10)
    entropy = mean_entropies(bench.decoder, call.answer_states(ids))
    p = bench.decoder.logits(call.answer_states(ids)[0]).softmax(-1)
    assert entropy[0] == pytest.approx(-(p * p.log()).sum(-1).mean().item())


def test_agreement_is_spearmans():
    torch.manual_seed(0)
    guess, measured = torch.randn(5, 4), torch.randn(5, 4)
    found = agreement(guess, measured)
    pairs = zip(guess.abs().numpy(), measured.abs().numpy(), strict=True)
    naively = np.mean([stats.spearmanr(a, b).statistic for a, b in pairs])
    assert found["within_rows"] == pytest.approx(naively)
    same = agreement(measured, -measured)
    assert same["pooled"] == pytest.approx(1) and same["first"] == 1
    assert agreement(torch.zeros(3, 2), torch.ones(3, 2))["pooled"] is None


def test_the_analysis_is_plain_data_of_every_place(bench):
    bench.config.analysis = AnalysisConfig(alternatives=2, examples=2)
    found = Attribution(bench.config).run(bench)
    assert [(p["round"], p["edge"]) for p in found["places"]] == [
        (1, "critic-solver"),
        (1, "planner-critic"),
        (1, "solver-planner"),
        (2, "critic-solver"),
        (2, "planner-critic"),
    ]
    assert len(found["examples"]) == 2 and len(found["places"][0]["positions"]) == M
    assert set(found["agreement"]["gradient"]) == {*KINDS, "leave_one_out"}


def test_what_was_written_is_scored_as_it_was_written(bench):
    """Read again as text, it would get the space of a template twice."""
    bench.config.evaluation.max_new_tokens = 4
    call = bench.last(bench.rows[:3])
    ids = bench.own(call)
    agent, inbox = bench.decoder, call.inbox
    for i, row in enumerate(bench.rows[:3]):
        vectors = {source: message.vectors[i] for source, message in inbox.items()}
        embeds = naive.prompt_embeds(bench.team, agent.name, row, R, vectors)
        for token in ids[i]:
            logits = agent.model(inputs_embeds=embeds[None], use_cache=False).logits[0, -1]
            assert token == int(logits.argmax())
            embeds = torch.cat([embeds, agent.embed(torch.tensor([token]))])
        assert len(ids[i]) == 4 or ids[i][-1] in agent.end_ids
    assert [t.text for t in call.write(4)] == [
        agent.tokenizer.decode(row, skip_special_tokens=True) for row in ids
    ]


def test_text_weights_are_prefix_gradients(bench):
    call = list(Recursion(bench.team, TextChannel(3)).unroll(bench.rows[:3], 1))[1]
    assert call.agent == "critic" and list(call.inbox) == ["planner"]
    written = [list(text.ids) for text in call.write(3)]
    found = weights(call, written)["planner"]
    agent = bench.team.agents["critic"]
    for i, row in enumerate(bench.rows[:3]):
        read = agent.tokenizer(call.inbox["planner"].texts[i], add_special_tokens=False)[
            "input_ids"
        ]
        if not read:
            assert found["gradient"][i] == 0
            continue
        leaf = agent.embed(torch.tensor(read)).detach().requires_grad_()
        embeds = naive.prompt_embeds(bench.team, "critic", row, 1, {"planner": leaf})
        own = written[i]
        total = 0.0
        for token in own:
            logits = agent.model(inputs_embeds=embeds[None], use_cache=False).logits[0, -1]
            total = total + logits.log_softmax(-1)[token] / len(own)
            embeds = torch.cat([embeds, agent.embed(torch.tensor([token]))])
        (gradient,) = torch.autograd.grad(total, leaf)
        assert found["gradient"][i].item() == pytest.approx(
            gradient.abs().sum(-1).mean().item(), rel=1e-5
        )
        both = (gradient * leaf).abs().sum(-1).mean()
        assert found["times_input"][i].item() == pytest.approx(both.item(), rel=1e-5)


def test_numbers_of_messages_by_hand():
    torch.manual_seed(0)
    x = torch.randn(6, 2, 8)
    unit = F.normalize(x, dim=-1)
    pairs = [(a, b) for a, b in itertools.permutations(range(6), 2)]
    naively = np.mean([float((unit[a] * unit[b]).sum(-1).mean()) for a, b in pairs])
    assert row_cosine(x) == pytest.approx(naively, abs=1e-6)
    assert variation(x.new_ones(6, 2, 8)) == 0
    assert variation(torch.cat([x, -x])) == pytest.approx(1)
    assert effective_rank(torch.eye(4) * 3) == pytest.approx(3, rel=1e-6)  # less their mean
    found = message_health(x, 7 * x, norm=1.0)
    assert found["neighbours_kept"] == 1
    assert found["loudness"] == pytest.approx(7 * float(x.norm(dim=-1).median()), rel=1e-6)


def test_the_nearest_tokens_and_the_answers_cosine(bench):
    agent = bench.decoder
    ids = [[5, 9], [7, 11]]
    vectors = torch.stack([agent.embed(torch.tensor(row)) for row in ids]) * 3
    found = nearest_tokens(agent, vectors, 3)
    for row, message in zip(ids, found, strict=True):
        for i, best in zip(row, message, strict=True):
            assert best[0] == [agent.tokenizer.decode([i]), 1.0] and len(best) == 3
    texts = [agent.tokenizer.decode(row) for row in ids]
    cosines = answer_cosines(agent, vectors.float(), texts)
    assert cosines.shape == (2, 2)
    again = [agent.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    if again == ids:
        assert cosines.diagonal().tolist() == pytest.approx([1, 1], abs=1e-5)


def test_a_probe_reads_what_is_linear_and_nothing_else():
    torch.manual_seed(0)
    labels = torch.arange(200) % 4
    order = torch.randperm(200)
    seen = F.one_hot(labels, 4).float() @ torch.randn(4, 30) + 0.1 * torch.randn(200, 30)
    assert probe(seen, labels, order) > 0.98
    assert probe(torch.randn(200, 30), labels, order) < 0.45


def test_rules_stop_where_they_say():
    right = torch.tensor([[0, 1, 1], [1, 1, 0], [0, 0, 0]], dtype=torch.bool)
    entropy = torch.tensor([[2.0, 0.1, 0.1], [0.1, 0.1, 2.0], [2.0, 2.0, 2.0]])
    texts = [["a", "b", "b"], ["c", "c", "d"], ["e", "f", "g"]]
    answers = Answers(right, entropy, texts)
    assert first(answers.agrees).tolist() == [2, 1, 2]
    assert first(entropy <= 0.5).tolist() == [1, 0, 2]
    found = stopping_curves(answers, answers)
    assert found["agreement"] == [
        {"threshold": 1.0, "rounds": pytest.approx(8 / 3), "accuracy": pytest.approx(2 / 3)}
    ]
    assert [p["accuracy"] for p in found["fixed"]] == pytest.approx([1 / 3, 2 / 3, 1 / 3])
    assert found["oracle"][0]["accuracy"] == pytest.approx(2 / 3)
    best = max(p["accuracy"] for p in found["trained"])
    assert best == pytest.approx(2 / 3)


def test_the_fitted_rule_is_the_minimum_of_the_penalised_loss():
    torch.manual_seed(1)
    x = torch.randn(300, 1, 3, dtype=torch.float64)
    slope = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    y = (x @ slope + torch.randn(300, 1) > 0).double()
    scaled = ((x[:, 0] - x[:, 0].mean(0)) / x[:, 0].std(0)).numpy()
    design, wanted = np.c_[scaled, np.ones(300)], y[:, 0].numpy()

    def loss(w):
        margin = design @ w
        return np.mean(np.logaddexp(0, margin) - wanted * margin) + DECAY / 2 * (w @ w)

    best = optimize.minimize(loss, np.zeros(4), tol=1e-12).x
    theirs = torch.tensor(1 / (1 + np.exp(-design @ best)))
    torch.testing.assert_close(fit(x, y).chance(x)[:, 0], theirs, rtol=0, atol=1e-4)


def test_depth_asks_after_each_round(bench):
    bench.config.data.answer_pattern = r"(?P<answer>.*)"
    found = Depth(bench.config).run(bench)
    assert [one["rounds"] for one in found["rounds"]] == [1, 2]
    assert found["fitted_on"].startswith("3 test rows") and "trained" in found["stopping"]


def naive_stop(bench, row, rounds, rule):
    """One row by itself: ask at depth 1, 2, ... until the rule says stop."""
    system = System(bench.team, bench.links, rounds, M, 4)
    texts, spent = [], 0
    for depth in range(1, rounds + 1):
        answer = system.answer([row], depth)[0]
        texts.append(answer.text)
        spent += answer.tokens
        if rule(texts) or depth == rounds:
            return answer.text, spent, answer.latent_steps
    raise AssertionError


def test_a_system_that_stops_answers_as_after_that_many_rounds(bench):
    system = System(bench.team, bench.links, 3, M, 4)
    agree = StoppingSystem(system, 4, lambda: agreement_rule).answer(bench.rows, 3)
    for row, answer in zip(bench.rows, agree, strict=True):
        naively = naive_stop(bench, row, 3, lambda t: len(t) > 1 and t[-1] == t[-2])
        assert (answer.text, answer.tokens, answer.latent_steps) == naively
    never, at_once = (partial(entropy_rule, most=most) for most in (0.0, 1e9))
    whole = StoppingSystem(system, 4, lambda: never).answer(bench.rows, 3)
    assert [a.text for a in whole] == [a.text for a in system.answer(bench.rows, 3)]
    first_ = StoppingSystem(system, 4, lambda: at_once).answer(bench.rows, 3)
    assert [a.text for a in first_] == [a.text for a in system.answer(bench.rows, 1)]
    assert {a.latent_steps for a in first_} == {2 * M}


def test_a_system_with_a_trained_rule_stops_where_the_analysis_says(bench):
    bench.config.rounds, bench.config.evaluation.max_new_tokens = 3, 4
    bench.config.data.answer_pattern = r"(?P<answer>.*)"
    answers = answers_by_round(bench, bench.rows)
    rule = StopRule(3, [0.3, 2.0, 0.0, 0.5], [0.4, 1.0, 0.1, 0.5], [0.2, 0.3, 1.0, 2.0, 0.1])
    chance = rule.chance(answers.features(3))
    system = System(bench.team, bench.links, 3, M, 4)
    for least in (0.0, *chance.flatten().quantile(torch.tensor([0.3, 0.6, 0.9]).double()), 1.0):
        # Halfway to the next value, so that rounding decides nothing.
        above = chance[chance > least]
        level = float((least + above.min()) / 2) if len(above) else float(least)
        trained = StoppingSystem(system, 2, lambda level=level: Trained(rule, level))
        stops = first(chance >= level).tolist()
        for answer, row, stop in zip(
            trained.answer(bench.rows, 3), answers.texts, stops, strict=True
        ):
            assert answer.text == row[stop]


def test_what_holds_no_rule_is_told(tmp_path):
    with pytest.raises(ConfigError, match="stop_rule=None: give the run folder"):
        read_rule(None)
    (tmp_path / "analyse").mkdir()
    path = tmp_path / "analyse" / "depth.json"
    rule = {"depth": 3, "middle": [0.0] * 4, "scale": [1.0] * 4, "weights": [0.0] * 5}
    path.write_text(json.dumps({"result": {"rule": rule}}))
    assert read_rule(str(tmp_path)).chance(torch.zeros(2, 4)).tolist() == [0.5, 0.5]
    for damaged in ({}, {"result": {}}, {"result": {"rule": rule | {"weights": [1.0]}}}, []):
        path.write_text(json.dumps(damaged))
        with pytest.raises(ConfigError, match="depth.json: no stopping rule"):
            read_rule(str(tmp_path))
