"""`latents: teacher_forced`: what the release trains, stated naively."""

import naive
import pytest
import torch
from tiny import make_family, make_links, make_rows, make_team

from rmas_train.config import Config, DataConfig, OuterConfig
from rmas_train.errors import ConfigError, TargetLeakWarning
from rmas_train.objectives.outer import OuterObjective
from rmas_train.objectives.outer_options import role_text_columns
from rmas_train.runs.load import Loaded
from rmas_train.runs.tables import Tables

M = 2
TEXTS = {"planner": "plan", "critic": "refined_plan"}


def naive_loss(team, links, row, rounds, texts, length=M):
    """Messages from the states of the texts' first tokens, row by row, without a cache."""

    def think(agent, inner, embeds_LD, latent_length):
        if agent.name not in texts:
            return naive.rollout(agent, inner, embeds_LD, latent_length)
        ids = naive.own_text(agent, row[texts[agent.name]])[:latent_length]
        whole = torch.cat([embeds_LD, agent.embed(torch.tensor(ids))])
        hidden = agent.model.model(inputs_embeds=whole[None]).last_hidden_state[0, -len(ids) :]
        return hidden, inner(hidden)

    return naive.loss(team, links, row, rounds, length, roll=(think, length))


@pytest.mark.parametrize("gold", [False, True])
@pytest.mark.parametrize("recurrent", [False, True])
def test_loss_and_gradient_are_the_naive_ones(agents64, table, gold, recurrent):
    """Texts of one to three tokens: messages differ in length within the batch."""
    if recurrent:
        agents64["critic"] = make_family("qwen3_5", "critic")
        agents64["critic"].model.double()
    team, rows, tolerance = make_team(agents64), make_rows(5), 1e-4 if recurrent else 1e-9
    rows[1]["plan"], rows[2]["refined_plan"] = "", ""
    texts = TEXTS | ({"solver": "answer"} if gold else {})
    links, plain = make_links(team).double(), make_links(team).double()
    plain.load_state_dict(links.state_dict())
    if gold:
        with pytest.warns(TargetLeakWarning, match="solver.*gold_answer"):
            objective = OuterObjective(team, links, table(rows), 3, M, role_texts=texts)
    else:
        objective = OuterObjective(team, links, table(rows), 3, M, role_texts=texts)
    loss = objective([0, 1, 2, 3, 4], 3).sum()
    total = sum(naive_loss(team, plain, row, 3, texts) for row in rows)
    torch.testing.assert_close(loss, total, rtol=tolerance, atol=0)
    loss.backward()
    total.backward()
    for (name, p), q in zip(links.named_parameters(), plain.parameters(), strict=True):
        if p.grad is not None:
            assert (p.grad - q.grad).norm() <= 10 * tolerance * q.grad.norm(), name


def messages_of(objective, rows, rounds):
    """What crosses each edge in training, (round, edge) -> vectors."""
    calls = list(objective.unroll(rows, rounds))
    return {(c.round, e.key): c.messages[e.key].vectors for c in calls for e in c.edges}


def test_only_gold_feedback_leaks_the_answer(team, table):
    """Another gold answer: no message changes, unless feedback asks for it."""
    sent = []
    links, rows = make_links(team), make_rows(3)
    other = [row | {"answer": " nine ten"} for row in rows]
    for texts in (TEXTS, TEXTS | {"solver": "answer"}):
        sent.clear()
        for some in (rows, other):
            if "solver" in texts:
                with pytest.warns(TargetLeakWarning):
                    objective = OuterObjective(team, links, table(some), 2, M, role_texts=texts)
            else:
                objective = OuterObjective(team, links, table(some), 2, M, role_texts=texts)
            sent.append(messages_of(objective, [0, 1, 2], 2))
        changed = {
            key for key, message in sent[0].items() if not torch.equal(message, sent[1][key])
        }
        leaks = {(1, "solver-planner"), (2, "planner-critic"), (2, "critic-solver")}
        assert changed == (leaks if "solver" in texts else set())


def test_which_text_an_agent_reads(team, table):
    """The decoder's only on request; a role without a text is named."""
    rows = table(make_rows(2))
    data = DataConfig(role_texts={"planner": "plan", "solver": "solution"})
    config = Config(data=data)
    loaded = Loaded(config, team, Tables(rows, rows, {}), {}, {})
    assert role_text_columns(config, loaded) == {}
    config.training.outer = OuterConfig(latents="teacher_forced", feedback="gold_answer")
    with pytest.raises(ConfigError, match=r"data\.role_texts\.critic"):
        role_text_columns(config, loaded)
    data.role_texts["critic"] = "refined_plan"
    assert role_text_columns(config, loaded) == TEXTS | {"solver": "answer"}
    config.training.outer = OuterConfig(latents="teacher_forced")
    assert role_text_columns(config, loaded) == TEXTS
