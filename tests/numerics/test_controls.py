"""Changed messages beside naive statements of the change."""

import json
from types import SimpleNamespace

import pytest
import torch
from tiny import make_links, make_rows

from rmas_train.config import Config, EvaluationConfig
from rmas_train.engine.inputs import LatentMessage, embed_prompts
from rmas_train.errors import ConfigError, DataError
from rmas_train.registry import SYSTEMS
from rmas_train.systems.base import Ingredients
from rmas_train.systems.changed import by_group, everywhere, matched_noise, mean_of_others, rotated
from rmas_train.systems.controls import derangement

EDGE = SimpleNamespace(key="planner-solver")


def messages(count=8, length=2, width=5):
    draw = torch.Generator().manual_seed(1)
    mix = torch.randn(width * length, width * length, generator=draw)
    flat = torch.randn(count, width * length, generator=draw) @ mix + 3
    return flat.reshape(count, length, width)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_mean_leaves_the_rows_own_message_out():
    sent = messages().double()
    found = mean_of_others(sent, generator())
    for i in range(len(sent)):
        naive = torch.stack([sent[j] for j in range(len(sent)) if j != i]).mean(0)
        torch.testing.assert_close(found[i], naive)


def test_noise_has_mean_and_covariance_of_the_messages_over_all_positions():
    sent = messages(400).double()
    draws = torch.cat([matched_noise(sent, generator(seed)) for seed in range(40)])
    naive = torch.cov(sent.flatten(1).T)
    assert (torch.cov(draws.flatten(1).T) - naive).norm() < 0.05 * naive.norm()
    assert (draws.mean(0) - sent.mean(0)).abs().max() < 0.1 * sent.std()


def test_noise_holds_nothing_of_the_rows_own_message():
    """Another message in a row's place changes what the other rows get, and not its own noise,
    but for the mean, of which it is one part in N."""
    sent, other = messages(50).double(), messages(50).double()
    other[7] += 100
    one, two = (matched_noise(x, generator()) - x.mean(0) for x in (sent, other))
    centre = (other.mean(0) - sent.mean(0)).norm()
    assert (one[7] - two[7]).norm() < 3 * centre
    assert (one[8] - two[8]).norm() > 0 and one[7].norm() > 0


def test_a_rotation_keeps_norms_and_angles_and_moves_everything():
    sent = messages().double()
    found = rotated(sent, generator())
    flat, moved = sent.reshape(-1, 5), found.reshape(-1, 5)
    torch.testing.assert_close(moved @ moved.T, flat @ flat.T)
    assert torch.cosine_similarity(flat, moved).abs().min() < 0.9
    torch.testing.assert_close(rotated(sent[:3], generator()), found[:3])


@pytest.mark.parametrize("change", [mean_of_others, matched_noise])
def test_a_row_is_mixed_within_its_group_whatever_else_is_asked(change):
    """Groups of 100 rows: each is the same where it is asked by itself."""
    sent = LatentMessage(messages(230))
    whole = by_group(change, "x", 0, 0)(sent, EDGE, 1).vectors
    first = by_group(change, "x", 0, 0)(LatentMessage(sent.vectors[:100]), EDGE, 1).vectors
    rest = by_group(change, "x", 0, 100)(LatentMessage(sent.vectors[100:]), EDGE, 1).vectors
    torch.testing.assert_close(whole[:100], first, rtol=0, atol=0)
    torch.testing.assert_close(whole[100:], rest, rtol=0, atol=0)


def test_a_derangement_too():
    assert derangement(230, 0)[:100] == derangement(100, 0)
    assert [i - 100 for i in derangement(230, 0)[100:]] == derangement(130, 0, first=100)
    assert sorted(derangement(201, 3)) == list(range(201))
    assert all(i != j for i, j in enumerate(derangement(201, 3)))


def test_a_rotation_is_the_same_in_every_round():
    sent = LatentMessage(messages())
    one, two = (everywhere(rotated, "x", 0)(sent, EDGE, r).vectors for r in (1, 2))
    assert torch.equal(one, two)
    other = everywhere(rotated, "x", 1)(sent, EDGE, 1).vectors
    assert not torch.equal(one, other)


def built(team, name, rows, **evaluation):
    options = {"max_new_tokens": 3, "batch_size": 4} | evaluation
    config = Config(rounds=2, latent_length=2, evaluation=EvaluationConfig(**options))
    links = {"trained": make_links(team).requires_grad_(False)}
    return SYSTEMS.get(name).build(Ingredients(config, team, links, rows)), links["trained"]


def other_rows(count):
    return [row | {"question": f"ten {row['question']} ten"} for row in make_rows(count)]


def test_messages_of_another_task_are_those_of_its_rows(team, tmp_path):
    rows, others = make_rows(5), other_rows(3)
    path = tmp_path / "other.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in others))
    crossed, _ = built(team, "cross_task", rows, cross_task=str(path))
    answers = crossed.answer(rows, 2)
    system = crossed.latent.system
    for i, row in enumerate(rows):
        sent = system.messages([others[i % 3]], 2)

        def instead(message, edge, round_, sent=sent):
            return LatentMessage(sent[round_, edge.key])

        (naive,) = system.answer([row], 2, interventions=[instead])
        assert naive.text == answers[i].text


def test_messages_of_another_task_need_rows_with_the_columns(team, tmp_path):
    with pytest.raises(ConfigError, match=r"cross_task=None: give a JSONL file"):
        built(team, "cross_task", make_rows(2))
    path = tmp_path / "other.jsonl"
    path.write_text('{"answer": "x"}\n')
    with pytest.raises(DataError, match=r"other\.jsonl.*question"):
        built(team, "cross_task", make_rows(2), cross_task=str(path))


def test_messages_of_another_task_are_of_no_row_that_is_asked(team, tmp_path):
    path = tmp_path / "other.jsonl"
    rows = [*other_rows(2), make_rows(1)[0] | {"answer": "other"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=r"other\.jsonl, line 3: shows the agents the same"):
        built(team, "cross_task", make_rows(2), cross_task=str(path))


def test_the_decoder_thinks_as_long_as_the_system(team):
    """Step by step, over the whole sequence each time."""
    rows = make_rows(2)
    thinking, links = built(team, "thinking", rows)
    system, _ = built(team, "latent", rows)
    answers = thinking.answer(rows, 2)
    assert [a.latent_steps for a in answers] == [a.latent_steps for a in system.answer(rows, 2)]
    agent, inner = team.agents["solver"], links.inner["solver"]
    for row, answer in zip(rows, answers, strict=True):
        batch = embed_prompts(agent, team.prompts["solver"].encode([row], 1, first=True), {})
        embeds = batch.embeds
        for _ in range(answer.latent_steps):
            hidden = agent.model.model(inputs_embeds=embeds).last_hidden_state[:, -1]
            embeds = torch.cat([embeds, inner(hidden)[:, None].to(embeds)], 1)
        ids = agent.model.generate(
            inputs_embeds=embeds,
            attention_mask=torch.ones(embeds.shape[:2], dtype=torch.long),
            max_new_tokens=3,
            do_sample=False,
        )
        assert answer.text == agent.tokenizer.decode(ids[0], skip_special_tokens=True)
