"""The systems that the benchmarks measure: the relay's tokenizers on random models of a given size.

Speed and memory depend on shapes, not on what weights have learnt; nothing is downloaded.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from rmas_train.agents.agent import Agent, freeze
from rmas_train.agents.prompts import Prompt
from rmas_train.config import EdgeConfig, LinksConfig, TopologyConfig
from rmas_train.data.rows import Table
from rmas_train.links.link_set import LinkSet, draw_links
from rmas_train.recursion import Team
from rmas_train.topology import build_topology

RELAY_AGENTS = Path(__file__).resolve().parent.parent / "data_recipes" / "relay" / "agents"
NAMES = ("planner", "critic", "solver")


@dataclass(frozen=True)
class Size:
    """Shapes of a benchmark.

    Attributes:
        width, layers: of each agent; widths differ by 32 from agent to agent.
        prompt: words of a question, one token each.
        latent_length: M.
        text: words of each role's text and of the answer.
        slot_first: the slot stands before the question (the release's order), not after it.
    """

    width: int = 256
    layers: int = 4
    prompt: int = 256
    latent_length: int = 16
    text: int = 2
    slot_first: bool = False


def build(size: Size, seed: int = 0) -> tuple[Team, LinkSet]:
    """Three agents of three families in a loop, and default links."""
    agents = {name: _agent(name, size.width + 32 * i, size.layers) for i, name in enumerate(NAMES)}
    edges = [
        EdgeConfig(source="planner", target="critic"),
        EdgeConfig(source="critic", target="solver"),
        EdgeConfig(source="solver", target="planner", next_round=True),
    ]
    config = TopologyConfig(name="sequential", order=list(NAMES), edges=edges, decoder="solver")
    topology = build_topology(config, agents)
    prompts = {}
    for name, agent in agents.items():
        source = topology.incoming(name)[0].source
        parts = ["<<question>>", f"<<message:{source}>>"]
        prompts[name] = Prompt(agent, {"user": " ".join(parts[:: -1 if size.slot_first else 1])})
    widths = {name: agent.width for name, agent in agents.items()}
    links = draw_links(
        LinksConfig(init="default"), topology, widths, dict.fromkeys(widths, 1.0), seed
    )
    return Team(agents, prompts, topology), links


def rows(count: int, size: Size, seed: int = 0) -> Table:
    """Questions, role texts and answers of relay words, one token each."""
    rng = random.Random(seed)
    words = ["start", "stop", *"ABCDEFGHIJ", *map(str, range(10)), *"uvwxyz"]

    def text(length: int) -> str:
        return " ".join(rng.choice(words) for _ in range(length))

    found = []
    for _ in range(count):
        texts = {key: f" {text(size.text)}" for key in ("plan", "refined_plan", "answer")}
        found.append({"question": text(size.prompt)} | texts)
    return Table(Path("benchmark"), found)


def _agent(name: str, width: int, layers: int) -> Agent:
    tokenizer = AutoTokenizer.from_pretrained(RELAY_AGENTS / name)
    config = AutoConfig.from_pretrained(RELAY_AGENTS / name)
    config.update(
        {"hidden_size": width, "head_dim": width // 4, "intermediate_size": 3 * width}
        | {"num_hidden_layers": layers, "max_position_embeddings": 4096}
    )
    if hasattr(config, "layer_types"):
        config.layer_types = ["full_attention"] * layers
    torch.manual_seed(width)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return freeze(Agent(name, model, tokenizer, f"random/{name}"))
