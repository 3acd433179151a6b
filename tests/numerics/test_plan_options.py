"""The plan measures the step that training runs: every option of it that costs anything counts."""

from dataclasses import fields, replace

import pytest

from rmas_train.compose import compose
from rmas_train.config import OuterConfig
from rmas_train.objectives.outer import OuterObjective
from rmas_train.planning.plan import make_plan
from rmas_train.planning.shapes import Tokens, read_shape, shape_agent, shape_links
from rmas_train.registry import OBJECTIVES
from rmas_train.topology import build_topology

# Options that change memory or operations of a step -> values at which they do.
COSTS = {
    "recompute": {"recompute": "agent"},
    "prefix_cache_gib": {"prefix_cache_gib": 0.5},
    "latents": {"latents": "teacher_forced"},
    "feedback": {"latents": "teacher_forced", "feedback": "gold_answer"},
    "gradient": {"gradient": "first_step"},
    "gradient_steps": {"gradient": "window", "gradient_steps": 1},
    "gradient_rounds": {"gradient_rounds": 1},
    "train_inner": {"train_inner": True},
    "earlier_rounds": {"earlier_rounds": 0.1},
    "objective": {"objective": "every_round_of_a_test"},
}
# What a step costs does not depend on these; rows and micro-batches are the plan's own argument.
FREE = [
    *("steps", "batch_size", "micro_batch_size", "lr", "warmup_steps", "weight_decay", "betas"),
    *("eps", "clip_norm", "clip_scope", "log_every", "save_every", "save_minutes", "keep"),
    *(
        "depth",
        "end_token",
        "loss_mean",
        "messages",
        "clip_message",
        "callbacks",
        "validate_every",
        "validate_rows",
        "select",
        "answers_of",
        "from_links",
        "message_noise",
        "profile_every",
        "self_distill",  # in steps of fewer rounds than the plan's
        "text_messages",  # its second forward is text, see planning.plan
    ),
]


class EveryRound(OuterObjective):
    def forward(self, rows, rounds):
        total = 0
        for call in self.unroll(rows, rounds, answer_rounds=range(1, rounds + 1)):
            if call.agent == self.team.topology.decoder:
                total = total + call.answer_loss(self.answers(rows))
        return total[None]


if EveryRound.__name__ not in OBJECTIVES.names():
    OBJECTIVES.register("every_round_of_a_test", EveryRound.from_config)


@pytest.fixture(scope="module")
def config():
    return compose(["experiment=none", "rounds=2", "latent_length=3"])


KNOWN = {}


def planned(config, **options):
    """Everything that a plan says of a step with these options; made once."""
    key = tuple(sorted(options.items()))
    if key not in KNOWN:
        KNOWN[key] = _planned(config, options)
    return KNOWN[key]


def _planned(config, options):
    training = replace(config.training, outer=replace(config.training.outer, **options))
    tokens = dict.fromkeys(config.topology.order, Tokens(12, 3, 3))
    return make_plan(replace(config, training=training), tokens, 2)


def test_every_option_is_known_here():
    """A new option has to be put on one of the two lists."""
    assert sorted([*COSTS, *FREE]) == sorted(f.name for f in fields(OuterConfig))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:from round 2 on")
@pytest.mark.parametrize("option", COSTS)
def test_an_option_that_costs_changes_the_plan(config, option):
    needed = {k: v for k, v in COSTS[option].items() if k != option}
    if option == "gradient_steps":
        needed = {"gradient": "window", "gradient_steps": 3}
    before = planned(config, **needed)
    after = planned(config, **COSTS[option])
    assert before != after
    assert before.total != after.total or before.flops != after.flops


@pytest.mark.slow
def test_kept_prefixes_count_to_their_limit(config):
    """As reported: 70 GiB of prefixes on a device of 80 GiB were planned as if they were none."""
    small = planned(config)
    large = planned(config, prefix_cache_gib=70)
    assert small.kept == 0 and large.kept == 70 * 2**30
    assert large.total > 70 * 2**30
    assert large.activations == pytest.approx(small.activations, rel=0.2)


@pytest.mark.slow
def test_what_is_free_changes_nothing_that_is_counted(config):
    assert planned(config, clip_message=1.0).flops == planned(config).flops


@pytest.mark.slow
def test_a_vocabulary_read_out_costs_its_products_and_its_tables(config):
    """Two products of width times vocabulary for each vector, and as many back."""
    plain = planned(config)
    links = replace(config.links, readout="vocabulary", edge_input="hidden", norm="none")
    tokens = dict.fromkeys(config.topology.order, Tokens(12, 3, 3))
    vocabulary = make_plan(replace(config, links=links), tokens, 2)
    assert sum(vocabulary.flops.values()) > sum(plain.flops.values())
    shapes = {n: read_shape(n, config.agents[n]) for n in config.topology.order}
    topology = build_topology(config.topology, config.agents)
    agents = {n: shape_agent(n, shapes[n], config.agents[n]) for n in topology.agents}
    parameters = sum(p.numel() * 4 for p in shape_links(links, topology, agents).parameters())
    held = sum(
        min(agents[e.source].rows, agents[e.target].rows) * agents[e.target].width * 4
        for e in topology.edges
    )
    assert vocabulary.links == parameters + held
