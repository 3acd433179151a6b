"""Topologies: what runs, what reaches the answer, what is refused."""

import pytest
from tiny import SEQUENTIAL

from rmas_train.config import EdgeConfig, TopologyConfig
from rmas_train.errors import ConfigError
from rmas_train.topology import build_topology

AGENTS = ["planner", "critic", "solver"]


def topology(edges, order=AGENTS, decoder="solver"):
    config = TopologyConfig(
        name="t",
        order=list(order),
        edges=[EdgeConfig(source=s, target=t, next_round=n) for s, t, n in edges],
        decoder=decoder,
    )
    return build_topology(config, [*AGENTS, "spare"])


def test_sequential_unrolls_to_the_decoders_last_call():
    sequential = build_topology(SEQUENTIAL, AGENTS)
    one = [(1, "planner"), (1, "critic"), (1, "solver")]
    assert sequential.live_calls(1) == one
    assert sequential.live_calls(2) == [*one, (2, "planner"), (2, "critic"), (2, "solver")]


def test_the_feedback_edge_is_live_from_two_rounds_on():
    sequential = build_topology(SEQUENTIAL, AGENTS)
    assert sequential.live_edges(1) == {"planner-critic", "critic-solver"}
    assert sequential.live_edges(2) == {"planner-critic", "critic-solver", "solver-planner"}
    assert sequential.rolling_agents(1) == {"planner", "critic"}


def test_fan_in_and_fan_out():
    mixture = topology(
        [
            ("planner", "solver", False),
            ("critic", "solver", False),
            ("solver", "planner", True),
            ("solver", "critic", True),
        ]
    )
    assert [e.source for e in mixture.incoming("solver")] == ["planner", "critic"]
    live = mixture.live_calls(2)
    assert len(mixture.sends((1, "solver"), live)) == 2
    assert mixture.live_edges(2) == {e.key for e in mixture.edges}


def test_calls_that_cannot_reach_the_answer_do_not_run():
    """In the last round the critic only feeds the next one, which does not come."""
    late = topology(
        [("planner", "solver", False), ("critic", "planner", True), ("planner", "critic", False)]
    )
    assert (1, "critic") in late.live_calls(2)
    assert (2, "critic") not in late.live_calls(2)


@pytest.mark.parametrize(
    ("edges", "order", "decoder", "message"),
    [
        ([("planer", "solver", False)], AGENTS, "solver", "Did you mean 'planner'"),
        ([("planner", "solver", False)], AGENTS, "solver", "no path from 'critic'"),
        (
            [
                ("planner", "critic", False),
                ("critic", "planner", False),
                ("critic", "solver", False),
            ],
            AGENTS,
            "solver",
            "cycle within a round",
        ),
        (
            [("critic", "planner", False), ("planner", "solver", False)],
            AGENTS,
            "solver",
            "goes against",
        ),
        ([("planner", "solver", False)] * 2, ["planner", "solver"], "solver", "given 2 times"),
        ([("planner", "solver", False)], ["planner", "planner", "solver"], "solver", "2 times"),
        ([("planner", "solver", False)], ["solver"], "solver", "0 times"),
    ],
)
def test_bad_topologies_say_what_to_do(edges, order, decoder, message):
    with pytest.raises(ConfigError, match=message) as caught:
        topology(edges, order, decoder)
    assert "\n" not in str(caught.value)
