"""Every shipped style as it is shipped, topology, prompts and role texts: the naive numbers."""

from pathlib import Path

import naive
import pytest
import torch
from test_teacher_forced import naive_loss
from tiny import in_float64, make_family, make_links

from rmas_train.agents.prompt_files import read_prompt
from rmas_train.agents.prompts import make_prompt
from rmas_train.compose import compose
from rmas_train.config import Config, OuterConfig
from rmas_train.errors import TargetLeakWarning
from rmas_train.objectives.outer import OuterObjective
from rmas_train.objectives.outer_options import role_text_columns
from rmas_train.recursion import Team
from rmas_train.runs.load import Loaded
from rmas_train.runs.tables import Tables
from rmas_train.topology import build_topology

ROOT = Path(__file__).parents[2]
# Two layers that see 6 tokens each would not reach from a prompt's end back to its slot.
FAMILIES = {"qwen3": {}, "llama": {}, "mistral": {"sliding_window": 512}, "gemma3": {}}
STYLES = ("sequential", "mixture", "distillation", "deliberation")
M, ROUNDS = 2, 2


def shipped(style, folder="") -> tuple[Config, Team]:
    name = "sequential_light" if style == "sequential" else style
    config = compose([f"experiment={folder}{name}"])
    topology = build_topology(config.topology, config.agents)
    agents = {
        n: in_float64(make_family(f, n, **FAMILIES[f]))
        for n, f in zip(topology.agents, FAMILIES, strict=False)
    }
    folder, tasks = ROOT / config.data.prompts, ROOT / config.data.tasks
    prompts = {
        n: make_prompt(a, read_prompt(folder, n, tasks, config.data.task), n, topology.sources(n))
        for n, a in agents.items()
    }
    return config, Team(agents, prompts, topology)


def rows_of(config):
    texts = ["add them", "one and one"]
    return [
        {"question": q, "answer": f" {a}"}
        | {column: f"{name} {t}" for name, column in config.data.role_texts.items()}
        | {"answer": f" {a}"}
        for q, a, t in zip(("two red", "four go so"), ("ten", "six"), texts, strict=True)
    ]


@pytest.mark.parametrize("latents", ["rollout", "teacher_forced"])
@pytest.mark.parametrize("style", STYLES)
def test_loss_and_gradient_are_the_naive_ones(style, latents, table):
    config, team = shipped(style)
    rows = rows_of(config)
    config.training.outer = OuterConfig(latents=latents)
    loaded = Loaded(config, team, Tables(table(rows), table(rows), {}), {}, {})
    texts = role_text_columns(config, loaded)
    decoder = team.topology.decoder
    assert set(texts) == (set() if latents == "rollout" else set(team.agents) - {decoder})
    links, plain = make_links(team).double(), make_links(team).double()
    plain.load_state_dict(links.state_dict())
    objective = OuterObjective(team, links, table(rows), ROUNDS, M, role_texts=texts)
    loss = objective([0, 1], ROUNDS).sum()
    if texts:
        total = sum(naive_loss(team, plain, row, ROUNDS, texts) for row in rows)
    else:
        total = sum(naive.loss(team, plain, row, ROUNDS, M) for row in rows)
    torch.testing.assert_close(loss, total, rtol=1e-9, atol=0)
    loss.backward()
    total.backward()
    for edge in team.topology.edges:
        pairs = zip(
            links.outer[edge.key].parameters(), plain.outer[edge.key].parameters(), strict=True
        )
        for p, q in pairs:
            assert q.grad.norm() > 0 and (p.grad - q.grad).norm() <= 1e-8 * q.grad.norm(), edge


@pytest.mark.parametrize("style", STYLES)
def test_a_step_in_the_releases_settings_is_its_procedure(style, table):
    """Three rounds; each agent sends the states of its text, the decoder those of the gold answer;
    the last round's loss, each row's mean over its tokens, then the mean over rows."""
    config, team = shipped(style, "released/")
    rows = rows_of(config)
    rows[1]["answer"] = " six four red go"
    loaded = Loaded(config, team, Tables(table(rows), table(rows), {}), {}, {})
    norms = {"norm": config.links.norm, "variant": config.links.variant}
    links, plain = (make_links(team, **norms).double() for _ in range(2))
    with pytest.warns(TargetLeakWarning):
        objective = OuterObjective.from_config(config, loaded, links)
    assert config.rounds == 3 and config.latent_length == 80
    loss = objective([0, 1], config.rounds).sum() / objective.count([0, 1]).sum()
    texts = role_text_columns(config, loaded)
    assert set(texts) == set(team.agents)
    decoder = team.agents[team.topology.decoder]
    lengths = [len(naive.own_text(decoder, row["answer"])) for row in rows]
    losses = [naive_loss(team, plain, row, config.rounds, texts, length=80) for row in rows]
    total = sum(one / length for one, length in zip(losses, lengths, strict=True)) / len(rows)
    torch.testing.assert_close(loss, total, rtol=1e-9, atol=0)
    loss.backward()
    total.backward()
    for (name, p), q in zip(links.named_parameters(), plain.parameters(), strict=True):
        if name.startswith("outer."):
            assert q.grad.norm() > 0 and (p.grad - q.grad).norm() <= 1e-7 * q.grad.norm(), name
