"""The worked example of docs/topologies.md, as it stands there, trained on tiny agents."""

import re
from pathlib import Path

import naive
import pytest
import torch
import yaml
from tiny import make_family, make_links, make_rows
from unrolling import unroll

from rmas_train.agents.prompts import make_prompt
from rmas_train.config import EdgeConfig, TopologyConfig
from rmas_train.objectives.outer import OuterObjective
from rmas_train.recursion import Team
from rmas_train.topology import build_topology

DOC = (Path(__file__).parents[2] / "docs" / "topologies.md").read_text()
TOPOLOGY, AGENTS, PROMPT = (
    yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", DOC, re.S)
)
FAMILIES = {"/models/a": "qwen3", "/models/b": "llama", "/models/c": "gemma3"}


@pytest.fixture
def review():
    values = TOPOLOGY | {"edges": [EdgeConfig(**e) for e in TOPOLOGY["edges"]]}
    topology = build_topology(TopologyConfig(**values), AGENTS)
    agents = {n: make_family(FAMILIES[about["model"]], n) for n, about in AGENTS.items()}
    prompts = {}
    for name, agent in agents.items():
        slots = " ".join(f"<<message:{s}>>" for s in topology.sources(name))
        texts = PROMPT if name == "writer" else {"user": f"<<question>> {slots} go"}
        prompts[name] = make_prompt(agent, texts, name, topology.sources(name))
    return Team(agents, prompts, topology)


def test_it_trains_every_link_at_two_rounds(review, table):
    links = make_links(review)
    objective = OuterObjective(review, links, table(make_rows(3)), 2, 2)
    objective([0, 1, 2], 2).sum().backward()
    for edge in review.topology.edges:
        gradients = [p.grad for p in links.outer[edge.key].parameters()]
        assert all(g is not None and g.norm() > 0 for g in gradients), edge.key


def test_it_equals_the_naive_statement(review):
    rows = make_rows(3)
    links = make_links(review)
    messages = unroll(review, links, rows, 2, 2).messages
    assert {key for _, key in messages} == {e.key for e in review.topology.edges}
    for i, row in enumerate(rows):
        for key, message in naive.unroll(review, links, row, 2, 2)[0].items():
            torch.testing.assert_close(messages[key][i], message, rtol=1e-4, atol=1e-5)


def test_with_one_round_the_testers_edges_are_frozen(review):
    assert review.topology.live_edges(1) == {"planner-critic", "planner-writer", "critic-writer"}
    assert "tester" not in review.topology.rolling_agents(1)
