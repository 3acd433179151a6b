"""An agent per device: every tensor is moved to where it is used, forward and backward.

Checked without GPUs on fake tensors, which carry a device and no values: an operation on two
devices at once is an error there, as on real ones.
"""

import pytest
import torch
from tiny import make_links, make_rows, make_team
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import Parameter
from unrolling import unroll

from rmas_train.config import LinksConfig
from rmas_train.errors import ConfigError
from rmas_train.objectives.outer_options import Backward
from rmas_train.runs.starting_links import place_links
from rmas_train.runtime import placement


def move(module, mode, device):
    """Parameters and buffers as fake tensors of a device."""
    for child in module.modules():
        for name, p in child._parameters.items():
            if p is not None:
                fake = mode.from_tensor(p.detach()).to(device)
                child._parameters[name] = Parameter(fake, requires_grad=p.requires_grad)
        for name, b in child._buffers.items():
            if b is not None:
                child._buffers[name] = mode.from_tensor(b).to(device)


@pytest.mark.parametrize("checkpoint", [False, True])
def test_each_agent_on_its_own_device(agents, checkpoint):
    team = make_team(agents)
    links = make_links(team)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        for i, agent in enumerate(team.agents.values()):
            move(agent.model, mode, f"meta:{i}")
            move(links.inner[agent.name], mode, agent.device)
        for edge in team.topology.edges:
            move(links.outer[edge.key], mode, team.agents[edge.source].device)
        rows, answers = make_rows(3), [[1, 2]] * 3
        result = unroll(team, links, rows, 3, 2, backward=Backward(recompute=checkpoint))
        result.decoder.answer_loss(answers).backward()
    wanted = {edge.key: team.agents[edge.source].device for edge in team.topology.edges}
    assert len(set(wanted.values())) == 3
    for key, device in wanted.items():
        for p in links.outer[key].parameters():
            assert p.device == device
            assert p.grad.device == device


def test_links_are_placed_with_their_agents(agents):
    team = make_team(agents)
    links = make_links(team)
    team.agents["critic"].model.to("meta")
    place_links(links, team, LinksConfig())
    where = {n: {p.device.type for p in link.parameters()} for n, link in links.links().items()}
    there = {n for n, devices in where.items() if devices == {"meta"}}
    assert there == {"inner.critic", "outer.critic-solver"}


@pytest.mark.parametrize(
    ("processes", "rank", "gpus", "found"),
    [
        (1, 0, 8, [0, 1, 2]),
        (1, 0, 2, [0, 1, 0]),
        (2, 1, 8, [1, 3, 5]),
        (2, 0, 4, [0, 2, 0]),
    ],
)
def test_processes_share_the_gpus_of_a_machine(monkeypatch, processes, rank, gpus, found):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    names = ["planner", "critic", "solver"]
    devices = placement.assign_devices(names, torch.device("cuda", rank))
    assert [device.index for device in devices.values()] == found


def test_one_gpu_per_process_is_not_enough_to_spread(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match="2 process.es. share 2 GPU.s., so none has two"):
        placement.assign_devices(["planner"], torch.device("cuda", 0))
