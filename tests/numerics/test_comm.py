"""The plan's bytes between devices against what DDP and FSDP2 hand to their collectives.

One process stands for rank 0 of 8 or 64. Under PyTorch's fake process group collectives move
nothing, so that the numbers computed mean nothing; the volumes are real.
"""

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from tiny import TINY, make_agent, make_family, make_links, make_rows, make_team
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rmas_train.compose import compose
from rmas_train.data.rows import Table
from rmas_train.engine.rollout import Gradient
from rmas_train.errors import AgentError
from rmas_train.links.link_set import draw_links
from rmas_train.objectives.outer import OuterObjective
from rmas_train.objectives.outer_options import Backward
from rmas_train.planning.cost import count
from rmas_train.planning.shapes import read_shape
from rmas_train.planning.traffic import (
    Sizes,
    all_reduce_sent,
    communication,
    decoder_layers,
    padded_shard,
    sizes_of,
)
from rmas_train.topology import build_topology

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
ROUNDS, M = 2, 4
FULL, AGAIN = Backward(), Backward(recompute=True)


@pytest.fixture(params=[8, 64])
def world(request):
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=request.param)
    yield request.param
    dist.destroy_process_group()


class Wire(TorchDispatchMode):
    """Counts calls of collectives, and the bytes of their results."""

    def __init__(self):
        super().__init__()
        self.calls, self.bytes = Counter(), Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "c10d":
            results = [x for x in tree_leaves(args[0]) if isinstance(x, torch.Tensor)]
            self.calls[func._opname] += 1
            self.bytes[func._opname] += sum(t.nbytes for t in results)
        return func(*args, **(kwargs or {}))


class ThroughLinks(nn.Module):
    """Goes through every trainable link once."""

    def __init__(self, links):
        super().__init__()
        self.links = links

    def forward(self):
        links = self.links.trainable().values()
        return torch.stack([link(torch.randn(1, link.d_source)).sum() for link in links]).sum()


def planned_links(command):
    """Links of a plan's system as its outer stage trains them, with weights."""
    config = compose(command.split("rmas_train ")[1].split())
    topology = build_topology(config.topology, config.agents)
    shapes = {name: read_shape(name, config.agents[name]) for name in topology.agents}
    widths = {name: shape.hidden_size for name, shape in shapes.items()}
    links = draw_links(config.links, topology, widths, dict.fromkeys(widths, 1.0), seed=0)
    links.train_only({f"outer.{key}" for key in topology.live_edges(config.rounds)})
    return links


@pytest.mark.filterwarnings(
    "ignore:training.outer.checkpoint is now called"
)  # kept plans are older
@pytest.mark.parametrize("system", ["light", "scaled"])
def test_ddp_reduces_what_the_kept_plans_say(world, system):
    saved = json.loads((RESULTS / f"plan_{system}_64.json").read_text())
    (plan,) = (p for p in saved["plans"] if p["devices"] == world)
    module = ThroughLinks(planned_links(saved["environment"]["command"]))
    ddp = DistributedDataParallel(module)  # as runtime/ wraps
    buckets = []

    def hook(state, bucket):
        """What DDP does by itself, and a result, which the fake process group lacks."""
        buckets.append(bucket.buffer().nbytes)
        dist.all_reduce(bucket.buffer())
        done = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done

    ddp.register_comm_hook(None, hook)
    with Wire() as wire:
        ddp().backward()
    assert sum(buckets) == plan["gradients"] == plan["bytes_to_reduce"]
    assert plan["communication"]["gradients_sent"] == all_reduce_sent(sum(buckets), world)
    # Beside them only DDP's broadcast of the links' scales.
    assert wire.bytes == Counter(
        allreduce_=sum(buckets), broadcast_=sum(b.nbytes for b in module.buffers())
    )


def step_of(agents, backward):
    """The outer step of a tiny system, as a loss."""
    team = make_team(agents)
    table = Table(Path("rows.jsonl"), make_rows(3))
    objective = OuterObjective(team, make_links(team), table, ROUNDS, M, backward=backward)
    return lambda: objective([0, 1, 2], ROUNDS).sum()


def shard_layers(agents, world):
    """Decoder layers cut up, the rest whole."""
    mesh = init_device_mesh("cpu", (world,))
    for agent in agents.values():
        for layer in decoder_layers(agent.model):
            fully_shard(layer, mesh=mesh, reshard_after_forward=True)


def planned_and_counted(agents, backward, world):
    """Communication by the plan, and the wire of the very step with sharded layers."""
    step = step_of(agents, backward)
    models = [agent.model for agent in agents.values()]
    sizes = {name: sizes_of(agent.model) for name, agent in agents.items()}
    gathers = dict(zip(agents, count(models, [], step).gathers, strict=True))
    shard_layers(agents, world)
    with Wire() as wire:
        step().backward()
    return communication(sizes, gathers, 0, 1, world), wire


@pytest.mark.parametrize(
    "backward",
    [
        FULL,
        AGAIN,
        Backward(rounds=1),
        Backward(Gradient("first_step")),
        Backward(Gradient("parallel", 2)),
    ],
)
def test_fsdp2_gathers_what_the_plan_says(world, backward):
    agents = {name: make_agent(name) for name in TINY}
    planned, wire = planned_and_counted(agents, backward, world)
    assert set(wire.calls) == {"_allgather_base_"}, "frozen agents reduce nothing"
    assert wire.calls["_allgather_base_"] == planned.sharded_gathers
    assert wire.bytes["_allgather_base_"] * (world - 1) == planned.sharded_received * world
    layers = [x for agent in agents.values() for x in decoder_layers(agent.model)]
    whole = [not isinstance(next(x.parameters()), DTensor) for x in layers]
    forward_in_backward = backward.recompute or backward.gradient.mode == "parallel"
    # After going back through the answer FSDP2 keeps the decoder whole in a call that runs again.
    assert whole == [False] * 4 + [forward_in_backward] * 2


def test_recurrent_layers_are_padded(world):
    """Qwen3.5's small tensors have fewer rows than there are devices."""
    agents = {n: make_agent(n) for n in TINY} | {"solver": make_family("qwen3_5", "solver")}
    planned, wire = planned_and_counted(agents, FULL, world)
    assert wire.calls["_allgather_base_"] == planned.sharded_gathers
    assert wire.bytes["_allgather_base_"] * (world - 1) == planned.sharded_received * world


def test_windows_are_planned_a_little_low(world):
    agents = {name: make_agent(name) for name in TINY}
    planned, wire = planned_and_counted(agents, Backward(Gradient("window", 2)), world)
    assert 0.94 < planned.sharded_gathers / wire.calls["_allgather_base_"] < 1


@pytest.mark.parametrize("backward", [FULL, AGAIN])
def test_passes_through_layers_by_formula(backward):
    """Sequential: M forwards per call, one for each frozen prefix, one for the answer."""
    agents = {name: make_agent(name) for name in TINY}
    cost = count([a.model for a in agents.values()], [], step_of(agents, backward))
    graph = [(ROUNDS - 1) * M, ROUNDS * M, (ROUNDS - 1) * M]  # the first call keeps no graph
    again = graph if backward.recompute else [0, 0, 0]
    once = [ROUNDS * M + 1, ROUNDS * M + 1, (ROUNDS - 1) * M + 1 + 1]
    assert cost.forwards == [a + b for a, b in zip(once, again, strict=True)]
    assert cost.backwards == [graph[0], graph[1], graph[2] + 1]
    if not backward.recompute:
        both = zip(cost.forwards, cost.backwards, strict=True)
        assert cost.gathers == [a + b for a, b in both]


def test_arithmetic_of_volumes():
    assert all_reduce_sent(800, 8) == 1400 and all_reduce_sent(800, 1) == 0
    assert padded_shard([(16, 10), (3, 4)], 8) == 20 + 4
    sizes = {"a": Sizes([[(16, 10)]] * 3, rest=7)}
    moved = communication(sizes, {"a": 5}, 800, 2, 8)
    assert moved.sharded_weights == 3 * 20 + 7 and moved.sharded_gathers == 2 * 5 * 3
    assert moved.sharded_received == 30 * 7 * 20
    alone = communication(sizes, {"a": 5}, 800, 2, 1)
    assert alone.sharded_weights == 3 * 160 + 7
    assert alone.gradients_sent == alone.sharded_gathers == alone.sharded_received == 0


def test_a_model_without_a_stack_is_named():
    model = make_agent("solver").model
    model.config.num_hidden_layers = 5
    with pytest.raises(AgentError, match="5 decoder layers"):
        decoder_layers(model)
