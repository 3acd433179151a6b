"""The plan's counts against the very step, run with weights."""

import dataclasses
import gc
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from tiny import SEQUENTIAL, TINY, make_agent
from torch.utils.flop_counter import FlopCounterMode
from unrolling import unroll

from rmas_train.config import AgentConfig, LinksConfig
from rmas_train.data.rows import Table
from rmas_train.objectives.outer import OuterObjective
from rmas_train.objectives.outer_options import Backward
from rmas_train.planning.cost import ATTENTION_FLOPS, Cost, count, extrapolate
from rmas_train.planning.shapes import (
    CountedTokenizer,
    Tokens,
    shape_agent,
    shape_links,
    shape_team,
)
from rmas_train.topology import build_topology

TOKENS = Tokens(prefix=12, suffix=3, answer=4)
ROWS, ROUNDS, M = 3, 2, 4


def step_of(team, links, backward):
    answers = [[1] * TOKENS.answer] * ROWS

    def step():
        result = unroll(team, links, [{}] * ROWS, ROUNDS, M, backward=backward)
        return result.decoder.answer_loss(answers)

    return step


def real_team():
    agents = {n: dataclasses.replace(make_agent(n), tokenizer=CountedTokenizer()) for n in TINY}
    topology = build_topology(SEQUENTIAL, agents)
    return shape_team(agents, topology, LinksConfig(), dict.fromkeys(agents, TOKENS))


def with_links(team, device="cpu"):
    links = shape_links(LinksConfig(init="default"), team.topology, team.agents).to_empty(
        device=device
    )
    if device == "cpu":
        for p in links.parameters():
            torch.nn.init.normal_(p, std=0.1)
    OuterObjective(team, links, Table(Path(), []), ROUNDS, M)  # freezes the inner links
    return links


def on_meta(team):
    for agent in team.agents.values():
        agent.model.to("meta")
    return team


def known(team, links):
    models = [agent.model for agent in team.agents.values()]
    return models, [t for m in (*models, links) for t in (*m.parameters(), *m.buffers())]


@pytest.mark.parametrize("recompute", [False, True])
def test_counting_without_weights_equals_counting_with_them(recompute):
    """Bytes at the peak and operations, on the meta device and on the CPU."""
    backward, costs = Backward(recompute=recompute), []
    for device in ("cpu", "meta"):
        team = real_team()
        team = on_meta(team) if device == "meta" else team
        links = with_links(team, device)
        gc.collect()
        costs.append(count(*known(team, links), step_of(team, links, backward)))
    assert costs[0].flops == pytest.approx(costs[1].flops, rel=0.05)
    assert costs[0].peak == pytest.approx(costs[1].peak, rel=0.05)
    team = real_team()
    links = with_links(team)
    with FlopCounterMode(display=False, custom_mapping=ATTENTION_FLOPS) as counter:
        step_of(team, links, backward)().backward()
    assert sum(costs[0].flops.values()) == counter.get_total_flops()
    assert costs[0].flops["backward"] > 0 and costs[0].flops["frozen_forward"] > 0


@pytest.mark.slow
def test_costs_are_affine_in_layers():
    """Three layers from one and two, and from each agent by itself."""

    def at(depths):
        agents = {}
        for name, depth in zip(TINY, depths, strict=True):
            shape = deepcopy(make_agent(name).model.config)
            shape.num_hidden_layers, shape.layer_types = 8, ["full_attention"] * 8
            agents[name] = shape_agent(name, shape, AgentConfig(model="tiny"), depth)
        topology = build_topology(SEQUENTIAL, agents)
        team = shape_team(agents, topology, LinksConfig(), dict.fromkeys(agents, TOKENS))
        links = with_links(team, "meta")
        return count(*known(team, links), step_of(team, links, Backward(recompute=True)))

    guess, exact = extrapolate(at, [3, 2, 4]), at([3, 2, 4])
    assert guess.flops == pytest.approx(exact.flops)
    assert guess.peak == pytest.approx(exact.peak, rel=0.03)


def test_arithmetic_of_costs():
    a = Cost([1.0, 2.0], dict.fromkeys(("frozen_forward", "graph_forward", "backward"), 3.0))
    assert (a + a * 2.0).peaks == [3.0, 6.0]
    assert (a + a * 2.0).flops["backward"] == 9.0
