"""``links.shared``: one outer link for all edges, against separate links with the same values."""

import copy

import pytest
import torch
from released import save
from safetensors.torch import load_file
from test_levers import gradients, objective
from tiny import SEQUENTIAL, in_float64, make_family, make_links, make_rows, make_team

from rmas_train.agents.prompts import Prompt
from rmas_train.compose import config_from
from rmas_train.config import EdgeConfig, LinksConfig, TopologyConfig, TrainingConfig
from rmas_train.engine.rollout import Gradient
from rmas_train.errors import ConfigError
from rmas_train.links.link_set import LinkSet, draw_links
from rmas_train.links.restore import restore_links
from rmas_train.links.start import Moments, Pairs, align_links, ridge, together
from rmas_train.objectives.outer_options import Backward
from rmas_train.recursion import Team
from rmas_train.topology import build_topology
from rmas_train.training.checkpoint import Checkpoint, write
from rmas_train.training.optimizer import LinkAdamW

FAMILIES = {"planner": "qwen3", "critic": "llama", "solver": "qwen2"}


@pytest.fixture(scope="module")
def team():
    agents = {n: make_family(f, n, hidden_size=24) for n, f in FAMILIES.items()}
    return make_team({name: in_float64(agent) for name, agent in agents.items()})


def untied(links):
    """The same values, with parameters of their own."""
    outer = {key: copy.deepcopy(link) for key, link in links.outer.items()}
    return LinkSet(dict(links.inner.items()), outer)


def test_its_gradient_is_the_sum_of_those_of_links_of_their_own(team):
    links, rows = make_links(team, shared=True).double(), make_rows(4)
    own = untied(links)
    ours = objective(team, links, rows)(range(4), 3)[0]
    others = objective(team, own, rows)(range(4), 3)[0]
    torch.testing.assert_close(ours, others, rtol=1e-12, atol=1e-12)
    found, parts = gradients(ours, links), gradients(others, own)
    assert {name.split(".")[1] for name in found} == {"planner-critic"}
    for name, gradient in found.items():
        total = sum(parts[name.replace("planner-critic", key)] for key in links.outer)
        torch.testing.assert_close(gradient, total, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize(
    "backward",
    [Backward(), Backward(recompute=True), Backward(Gradient("parallel", 3))],
    ids=["exact", "recompute", "parallel"],
)
def test_an_agent_that_sends_it_twice_counts_each_message_once(team, backward):
    """A call with two edges has the parameters of one link."""
    both = [("planner", "solver", False), ("critic", "solver", False)]
    both += [("solver", "planner", True), ("solver", "critic", True)]
    edges = [EdgeConfig(source=a, target=b, next_round=n) for a, b, n in both]
    star = TopologyConfig(name="star", order=list(team.agents), edges=edges, decoder="solver")
    topology = build_topology(star, team.agents)
    prompts = {
        name: Prompt(agent, {"user": "<<question>> note " + slots})
        for (name, agent), slots in zip(
            team.agents.items(),
            ["<<message:solver>>", "<<message:solver>>", "<<message:planner>> <<message:critic>>"],
            strict=True,
        )
    }
    hub = Team(team.agents, prompts, topology, team.edge_input)
    links, rows = make_links(hub, shared=True).double(), make_rows(4)
    own = untied(links)
    found, parts = (
        gradients(objective(hub, x, rows, backward=backward)(range(4), 3)[0], x)
        for x in (links, own)
    )
    for name, gradient in found.items():
        keys = [parts.get(name.replace("planner-solver", key)) for key in links.outer]
        total = sum(part for part in keys if part is not None)
        torch.testing.assert_close(gradient, total, rtol=1e-7, atol=1e-10)


def test_it_is_one_link_for_the_optimizer(team):
    links = make_links(team, shared=True).double()
    groups = objective(team, links, make_rows(4)).groups()
    assert list(groups) == ["outer.planner-critic"]
    LinkAdamW(groups, TrainingConfig(steps=1, batch_size=1, lr=0.1))
    links.train_only({"outer.solver-planner"})
    assert list(links.trainable()) == ["outer.planner-critic"]


def test_truncated_to_a_round_it_is_trained_by_the_edges_that_are_left(team):
    links, rows = make_links(team, shared=True).double(), make_rows(4)
    own = untied(links)
    found, parts = (
        gradients(objective(team, x, rows, backward=Backward(rounds=1))(range(4), 3)[0], x)
        for x in (links, own)
    )
    trained = {name.split(".")[1] for name in parts}
    assert "solver-planner" not in trained
    for name, gradient in found.items():
        total = sum(parts[name.replace("planner-critic", key)] for key in trained)
        torch.testing.assert_close(gradient, total, rtol=1e-7, atol=1e-10)


def test_each_edge_keeps_its_targets_norm(team):
    widths = dict.fromkeys(team.agents, 24)
    norms = {"planner": 1.0, "critic": 2.0, "solver": 3.0}
    config = LinksConfig(init="default", shared=True)
    links = draw_links(config, team.topology, widths, norms, seed=0)
    assert [link.scale.item() for link in links.outer.values()] != [1.0, 1.0, 1.0]
    x = torch.randn(5, 24)
    critic, solver = (links.outer[key](x) for key in ("planner-critic", "critic-solver"))
    torch.testing.assert_close(critic * 1.5, solver)


def test_its_aligned_start_is_fitted_on_the_pairs_of_all_edges(team):
    torch.manual_seed(0)
    links = make_links(team, shared=True, norm="none", variant="linear").double()
    pairs = {key: Pairs(torch.randn(20, 24), torch.randn(20, 24)) for key in links.outer}
    config = LinksConfig(shared=True, norm="none", variant="linear")
    report = align_links(links, pairs, config, seed=0)
    weight, bias = ridge(Moments.of(together(pairs.values())), config.ridge)
    for link in links.outer.values():
        torch.testing.assert_close(link.main_path.weight, weight)
        torch.testing.assert_close(link.main_path.bias, bias)
    assert list(report) == list(links.outer)


def test_its_folder_holds_every_edge_and_is_restored_as_one(team, tmp_path):
    save(tmp_path / "links", team.topology, SEQUENTIAL, dict.fromkeys(team.agents, 24), shared=True)
    tensors = load_file(tmp_path / "links" / "links.safetensors")
    links = restore_links(tmp_path / "links")[2]
    first = dict(links.outer["planner-critic"].named_parameters())
    for key, link in links.outer.items():
        for name, parameter in link.named_parameters():
            assert parameter is first[name]
            assert torch.equal(parameter, tensors[f"outer.{key}.{name}"])


def test_agents_of_other_widths_are_refused():
    topology_links = {"planner": 24, "critic": 24, "solver": 28}
    team = make_team({n: make_family(f, n, hidden_size=24) for n, f in FAMILIES.items()})
    norms = dict.fromkeys(topology_links, 1.0)
    config = LinksConfig(init="default", shared=True)
    with pytest.raises(ConfigError, match="24 to 24 and 24 to 28 wide"):
        draw_links(config, team.topology, topology_links, norms, seed=0)


def test_a_checkpoint_holds_them(team, tmp_path):
    state = make_links(team, shared=True).state_dict()
    path = write(tmp_path, Checkpoint(1, state, {}, {}, {}, {}))
    found = load_file(path / "links.safetensors")
    assert all(torch.equal(found[key], value) for key, value in state.items())
    assert found.keys() == state.keys()


@pytest.mark.parametrize("runtime", [{"backend": "zero3"}, {"placement": "per_agent"}])
def test_where_parameters_cannot_be_shared_is_refused(runtime):
    typed = [f"runtime.{key}={value}" for key, value in runtime.items()]
    with pytest.raises(ConfigError, match="links.shared=true with runtime"):
        config_from(["experiment=relay", "links.shared=true", *typed])
