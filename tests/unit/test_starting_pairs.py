"""Which pairs of embeddings an aligned start is fitted on."""

import copy
from dataclasses import replace

import pytest
import torch
from tiny import make_agent, make_team

from rmas_train.config import LinksConfig
from rmas_train.links.vocabulary import shared_tokens
from rmas_train.runs.starting_links import edge_pairs


def pairs_of(team, start_pairs, texts):
    options = LinksConfig(start_pairs=start_pairs, edge_input="inner")
    edge = next(e for e in team.topology.edges if e.key == "critic-solver")
    return edge_pairs(team, edge, options, texts.__getitem__)


@pytest.fixture
def seen(team):
    """Twenty shared tokens, as token sequences of both agents; one of them nearly zero."""
    critic, solver = team.agents["critic"], team.agents["solver"]
    shared = shared_tokens(critic.tokenizer, solver.tokenizer)[:20]
    with torch.no_grad():
        critic.model.get_input_embeddings().weight[shared[3][0]] *= 1e-3
    return {"critic": [[a for a, _ in shared]], "solver": [[b for _, b in shared]]}


def test_what_the_data_hold_is_paired_whatever_its_norm(team, seen):
    """Filtered by norm, the relay's start had 20 pairs in place of 31: its figures had changed."""
    assert len(pairs_of(team, "seen", seen)) == 20


def test_rows_that_no_text_has_reached_are_left_out_of_all(team, seen):
    agents = [team.agents[n] for n in ("critic", "solver")]
    shared = shared_tokens(*(a.tokenizer for a in agents))
    pairs = pairs_of(team, "all", seen)
    for i, kept in enumerate((pairs.source, pairs.target)):
        middle = agents[i].embed(torch.tensor([p[i] for p in shared])).norm(dim=-1).median()
        assert (kept.norm(dim=-1) > middle / 2).all() and (kept.norm(dim=-1) < middle * 2).all()
    assert 8 < len(pairs) < len(shared)


def test_one_model_loaded_twice_is_one_model():
    agents = {name: make_agent(name) for name in ("planner", "critic", "solver")}
    critic = agents["critic"]
    again = copy.deepcopy(critic.model)
    agents["solver"] = replace(agents["solver"], model=again, tokenizer=critic.tokenizer)
    team = make_team(agents)
    pairs = pairs_of(team, "all", {})
    assert team.agents["solver"].model is not team.agents["critic"].model
    assert pairs.same


def test_two_models_are_not_one(team):
    assert not pairs_of(team, "all", {}).same
