"""The engine on a device against a naive statement: messages, and gradients of the links.

    python benchmarks/numerics_gpu.py [--device cuda] [--out docs/results/numerics_gpu.json]

Three small agents of the light system's families with random weights. Naive: one row, no cache, the
whole sequence again for each latent step. Exact: the naive statement in float32. In bfloat16 the
engine (frozen prefixes, KV cache, a padded batch) may be twice as far from it as the naive
statement in bfloat16 is; in float32 it must be equal to rounding. Exit code 1 if a bound is not
kept. Needs no hub and no package beyond torch, transformers, accelerate and hydra.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from outer import plain_unroll
from torch import Tensor
from transformers import PretrainedConfig

from rmas_train.agents.agent import Agent, freeze
from rmas_train.agents.prompts import EncodedPrompt
from rmas_train.channels import LatentChannel
from rmas_train.compose import compose
from rmas_train.config import LinksConfig
from rmas_train.data.rows import Row, Table
from rmas_train.engine.rollout import Gradient
from rmas_train.links.link_set import LinkSet, draw_links
from rmas_train.objectives.outer import OuterObjective
from rmas_train.objectives.outer_options import Backward
from rmas_train.planning.shapes import CountedTokenizer, read_shape, shape_agent
from rmas_train.recursion import Recursion, Team
from rmas_train.runs.session import environment
from rmas_train.support.files import write_json
from rmas_train.topology import Topology, build_topology

ROUNDS, SUFFIX, VOCABULARY = 2, 5, 500
GAIN = 0.5  # of random weights
FLOAT32 = 1e-4  # largest relative error in float32
TIMES, BEYOND = 2.0, 1e-3  # in bfloat16: so many times the naive error, and so much more
REPEATS = 1e-5  # recompute against none in bfloat16, beyond what a repeat differs by

Messages = dict[tuple[int, str], Tensor]  # round, edge -> (B, M, D)


@dataclass(frozen=True)
class Size:
    """Of the agents and the batch; widths differ by 64 from agent to agent."""

    width: int = 512
    layers: int = 4
    rows: int = 6
    prompt: int = 96
    latent_length: int = 16


TINY = Size(width=64, layers=2, rows=3, prompt=12, latent_length=4)


class Numbers(CountedTokenizer):
    """Texts are token ids with spaces between them."""

    def __call__(self, texts: Sequence[str], **_: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [[int(word) for word in text.split()] for text in texts]}


@dataclass(frozen=True)
class RandomPrompt:
    """A row's own token ids for an agent, with its slot late in them."""

    agent: str
    source: str

    def encode(self, rows: Sequence[Row], round_: int, first: bool) -> list[EncodedPrompt]:  # noqa: ARG002
        ids = [row[self.agent] for row in rows]
        return [EncodedPrompt(i, [] if first else [(self.source, len(i) - SUFFIX)]) for i in ids]


@dataclass(frozen=True)
class System:
    """What is compared: agents in bfloat16, the same weights in float32, links, rows."""

    size: Size
    team: Team
    exact: Team
    links: LinkSet
    table: Table


def build(device: str, size: Size) -> System:
    config = compose(["agents=sequential_light_shapes", "experiment=none"])
    topology = build_topology(config.topology, config.agents)
    torch.manual_seed(0)
    agents, exact = {}, {}
    for i, name in enumerate(topology.agents):
        shape: PretrainedConfig = deepcopy(read_shape(name, config.agents[name]))
        shape.update(_sizes(size.width + 64 * i, size.layers))
        model = shape_agent(name, shape, config.agents[name], device=device).model
        agents[name] = Agent(name, model, Numbers(), "random", template="none")
        copy = deepcopy(model).float()
        exact[name] = freeze(Agent(name, copy, Numbers(), "random", template="none"))
    widths = {name: agent.width for name, agent in agents.items()}
    norms = {name: _embedding_norm(agent) for name, agent in exact.items()}
    links = draw_links(LinksConfig(init="default"), topology, widths, norms, seed=0).to(device)
    return System(size, _team(agents, topology), _team(exact, topology), links, _rows(size, agents))


def _sizes(width: int, layers: int) -> dict[str, Any]:
    """Options of a model's config; wide weights, so that messages decide what follows them."""
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "layer_types": ["full_attention"] * layers,
        "intermediate_size": 2 * width,
        "vocab_size": VOCABULARY,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": width // 8,
        "initializer_range": GAIN / width**0.5,
    }


def _embedding_norm(agent: Agent) -> float:
    return float(agent.model.get_input_embeddings().weight.norm(dim=-1).mean())


def _team(agents: dict[str, Agent], topology: Topology) -> Team:
    prompts: Any = {n: RandomPrompt(n, topology.incoming(n)[0].source) for n in agents}
    return Team(agents, prompts, topology)


def _rows(size: Size, agents: dict[str, Agent]) -> Table:
    """Prompts of different lengths, so that the batch is padded; answers as well."""
    rng = random.Random(0)

    def ids(count: int) -> list[int]:
        return [rng.randrange(1, VOCABULARY) for _ in range(count)]

    rows: list[Row] = []
    for i in range(size.rows):
        prompts = {name: ids(size.prompt - i + SUFFIX) for name in agents}
        rows.append(prompts | {"answer": " ".join(map(str, ids(3 + i)))})
    return Table(Path("random"), rows, digest="random")


@dataclass(frozen=True)
class Outcome:
    """Messages of all rows, and the gradient of all links as one vector."""

    messages: Messages
    gradient: Tensor


def naive(system: System, team: Team) -> Outcome:
    """Row by row."""
    system.links.requires_grad_(True).zero_grad()
    found = []
    for row in system.table.rows:
        messages, loss = plain_unroll(team, system.links, row, ROUNDS, system.size.latent_length)
        loss.backward()
        found.append({key: message.detach() for key, message in messages.items()})
    joined = {key: torch.cat([one[key] for one in found]) for key in found[0]}
    return Outcome(joined, gradient_of(system.links))


def engine(system: System, team: Team, backward: Backward) -> Outcome:
    """All rows at once, as in training."""
    length = system.size.latent_length
    objective = OuterObjective(
        team, system.links, system.table, ROUNDS, length, train_inner=True, backward=backward
    )
    system.links.zero_grad()
    rows = range(len(system.table))
    messages: Messages = {}
    for call in objective.unroll(rows, ROUNDS):
        messages |= {(call.round, k): m.tensors()[0].detach() for k, m in call.messages.items()}
    call.answer_loss(objective.answers(rows)).backward()
    return Outcome(messages, gradient_of(system.links))


@torch.no_grad()
def answering(system: System, team: Team) -> Messages:
    """Messages as in evaluation: no graph, keys and values in one buffer."""
    channel = LatentChannel(system.links, system.size.latent_length, in_buffer=True)
    return {
        (call.round, key): message.tensors()[0]
        for call in Recursion(team, channel).unroll(system.table.rows, ROUNDS)
        for key, message in call.messages.items()
    }


def gradient_of(links: LinkSet) -> Tensor:
    """Of every parameter, as one vector; zeros where there is none."""
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in links.parameters()]
    return torch.cat([part.flatten() for part in parts])


def distance(x: Tensor, exact: Tensor) -> float:
    """Relative to ``exact``."""
    return float((x - exact).norm() / exact.norm())


def worst(messages: Messages, exact: Messages) -> float:
    """The largest relative error of an edge in a round, over all rows."""
    assert messages.keys() == exact.keys()
    return max(distance(messages[key], exact[key]) for key in exact)


def compare(system: System, team: Team, exact: Outcome) -> dict[str, float]:
    """Relative errors of a team's engine: messages and gradients, and of ways to a gradient."""
    length = system.size.latent_length
    plain, again = (engine(system, team, Backward()) for _ in range(2))
    recomputed = engine(system, team, Backward(recompute=True))
    parallel = engine(system, team, Backward(Gradient("parallel", length)))
    return {
        "messages": worst(plain.messages, exact.messages),
        "messages_in_a_buffer": worst(answering(system, team), exact.messages),
        "gradient": distance(plain.gradient, exact.gradient),
        "gradient_parallel": distance(parallel.gradient, exact.gradient),
        "parallel_against_full": distance(parallel.gradient, plain.gradient),
        "recompute_against_none": distance(recomputed.gradient, plain.gradient),
        "repeated": distance(again.gradient, plain.gradient),
    }


def apart(messages: Messages) -> float:
    """How far the next row's message is from a row's own, at least; errors must be far below."""
    return min(distance(message.roll(1, 0), message) for message in messages.values())


def failures(found: dict[str, dict[str, float]]) -> list[str]:
    """The bounds that are not kept, one line each."""
    low, high, plain = found["bfloat16"], found["float32"], found["naive_bfloat16"]
    bounds = [(f"float32 {key}", value, FLOAT32) for key, value in high.items()]
    for key, one in (
        ("messages", "messages"),
        ("messages_in_a_buffer", "messages"),
        ("gradient", "gradient"),
        ("gradient_parallel", "gradient"),
    ):
        bounds.append((f"bfloat16 {key}", low[key], TIMES * plain[one] + BEYOND))
    most = TIMES * low["repeated"] + REPEATS
    bounds.append(("bfloat16 recompute_against_none", low["recompute_against_none"], most))
    return [
        f"{name}: {value:.2e}, at most {bound:.2e}"
        for name, value, bound in bounds
        if not value <= bound  # NaN is no better
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/results/numerics_gpu.json"))
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    system = build(args.device, TINY if args.tiny else Size())
    exact, plain = naive(system, system.exact), naive(system, system.team)
    found = {
        "float32": compare(system, system.exact, exact),
        "bfloat16": compare(system, system.team, exact),
        "naive_bfloat16": {
            "messages": worst(plain.messages, exact.messages),
            "gradient": distance(plain.gradient, exact.gradient),
        },
    }
    broken = failures(found)
    whole = {
        "size": asdict(system.size) | {"rounds": ROUNDS},
        "relative_errors": found,
        "rows_apart": apart(exact.messages),
        "failures": broken,
        "environment": environment(),
    }
    write_json(args.out, whole)
    for name, errors in found.items():
        print(name, *(f"{key} {value:.2e}" for key, value in errors.items()), sep="  ")
    print("all bounds kept" if not broken else f"bounds not kept: {'; '.join(broken)}")
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
