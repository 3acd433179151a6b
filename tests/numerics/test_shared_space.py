"""``links.shared_space``: ends that edges share, against a link per edge with the same values."""

import copy

import pytest
import torch
from released import save
from test_levers import gradients, objective
from tiny import SEQUENTIAL, in_float64, make_family, make_links, make_rows, make_team

from rmas_train.analysis.link_report import InspectedLink, report
from rmas_train.compose import config_from
from rmas_train.config import LinksConfig, TrainingConfig
from rmas_train.errors import ConfigError
from rmas_train.links.link_set import LinkSet, draw_links
from rmas_train.links.restore import restore_links
from rmas_train.links.shared_space import space_edges
from rmas_train.links.start import Moments, Pairs, align_links, ridge
from rmas_train.objectives.outer_options import Backward
from rmas_train.training.optimizer import LinkAdamW

WIDTHS = {"planner": 24, "critic": 32, "solver": 16}
FAMILIES = {"planner": "qwen3", "critic": "llama", "solver": "qwen2"}
SPACE = 32
ENDS = [f"{end}.{name}" for name in WIDTHS for end in ("enter", "leave")]


@pytest.fixture(scope="module")
def team():
    agents = {n: make_family(f, n, hidden_size=WIDTHS[n]) for n, f in FAMILIES.items()}
    return make_team({name: in_float64(agent) for name, agent in agents.items()})


@pytest.fixture
def links(team):
    return make_links(team, shared_space=SPACE).double()


def test_a_message_goes_in_and_out_again(links):
    x = torch.randn(5, WIDTHS["planner"], dtype=torch.float64)
    link = links.outer["planner-critic"]
    torch.testing.assert_close(link(x), link.leave(link.enter(x)), rtol=1e-12, atol=1e-12)
    assert link.enter(x).shape == (5, SPACE)
    assert link.leave is not links.outer["critic-solver"].leave


def test_every_edge_of_an_agent_has_the_same_end(team):
    """The planner sends to both others, and both send to it."""
    edges = [(a, b) for a in WIDTHS for b in WIDTHS if a != b]
    topology = copy.copy(team.topology)
    object.__setattr__(topology, "edges", [type(topology.edges[0])(a, b) for a, b in edges])
    links = draw_links(
        LinksConfig(init="default", shared_space=SPACE), topology, WIDTHS, WIDTHS, seed=0
    )
    for a, b in edges:
        link = links.outer[f"{a}-{b}"]
        assert link.enter is links.parts()[f"enter.{a}"]
        assert link.leave is links.parts()[f"leave.{b}"]
    assert sorted(n for n in links.parts() if not n.startswith("inner.")) == sorted(ENDS)


@pytest.mark.parametrize("recompute", [False, True])
def test_its_gradient_is_that_of_a_link_per_edge(team, links, recompute):
    rows, backward = make_rows(4), Backward(recompute=recompute)
    own = LinkSet(dict(links.inner.items()), {k: copy.deepcopy(v) for k, v in links.outer.items()})
    ours, others = (
        objective(team, x, rows, backward=backward)(range(4), 3)[0] for x in (links, own)
    )
    torch.testing.assert_close(ours, others, rtol=1e-12, atol=1e-12)
    found, parts = gradients(ours, links), gradients(others, own)
    assert found.keys() == parts.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, parts[name], rtol=1e-7, atol=1e-10)


def test_its_ends_are_what_is_trained_and_watched(team, links):
    found = objective(team, links, make_rows(4))
    groups = [name for name in found.groups() if not name.startswith("inner.")]
    assert sorted(groups) == sorted(ENDS)
    LinkAdamW(found.groups(), TrainingConfig(steps=1, batch_size=1, lr=0.1))
    assert links.trained_parts_of({"outer.planner-critic"}) == {"enter.planner", "leave.critic"}
    links.train_only({"outer.solver-planner"})
    assert sorted(links.trainable()) == ["enter.solver", "leave.planner"]


def test_its_aligned_start_goes_through_the_embeddings_of_one_agent(team, links):
    """The critic's, whose width the space has: its own ends are the identity."""
    torch.manual_seed(0)
    ends = space_edges(team.topology, SPACE, WIDTHS)
    assert ends["enter.planner"].key == "planner-critic"
    assert ends["leave.solver"].key == "critic-solver"
    tables = {n: torch.randn(60, width, dtype=torch.float64) for n, width in WIDTHS.items()}
    pairs = {name: Pairs(tables[e.source], tables[e.target]) for name, e in ends.items()}
    config = LinksConfig(shared_space=SPACE)
    reports = align_links(links, pairs, config, seed=0)
    assert sorted(reports) == sorted(ENDS)
    parts = links.parts()
    for name in ("enter.planner", "leave.solver"):
        weight, bias = ridge(Moments.of(pairs[name]), config.ridge)
        torch.testing.assert_close(parts[name].main_path.weight, weight)
        torch.testing.assert_close(parts[name].main_path.bias, bias)
    for name in ("enter.critic", "leave.critic"):
        eye = torch.eye(SPACE, dtype=torch.float64)
        assert torch.equal(parts[name].main_path.weight, eye)


def test_a_width_that_no_agent_has_starts_as_drawn_alone(team):
    with pytest.raises(ConfigError, match=r"shared_space=20 .* planner 24, critic 32, solver 16"):
        space_edges(team.topology, 20, WIDTHS)
    assert make_links(team, shared_space=20).between("planner", "solver").enter.d_target == 20


def test_its_folder_is_restored_with_the_same_ends(team, tmp_path):
    save(tmp_path / "links", team.topology, SEQUENTIAL, WIDTHS, shared_space=SPACE)
    links = restore_links(tmp_path / "links")[2]
    assert sorted(n for n in links.parts() if not n.startswith("inner.")) == sorted(ENDS)
    never_joined = links.between("planner", "solver")
    assert never_joined.enter is links.outer["planner-critic"].enter
    assert never_joined.leave is links.outer["critic-solver"].leave


def test_a_report_says_when_both_ends_are_as_drawn(links):
    link = links.float().outer["planner-critic"].requires_grad_(False)
    assert report({"a": InspectedLink(link)})["links"]["a"]["looks_untouched"]
    link.leave.pre_ln.weight[0] = 2
    assert not report({"a": InspectedLink(link)})["links"]["a"]["looks_untouched"]


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        (["runtime.backend=zero3"], "shared_space=64 with runtime"),
        (["runtime.placement=per_agent"], "shared_space=64 with runtime"),
        (["links.shared=true"], "shared_space=64 with links.shared=true"),
        (["links=vocabulary"], "shared_space=64 with links.readout=vocabulary"),
        (["links.shared_space=0"], "links.shared_space=0 is too small"),
    ],
)
def test_what_cannot_be_is_refused(typed, why):
    with pytest.raises(ConfigError, match=why):
        config_from(["experiment=relay", "links.shared_space=64", *typed])
