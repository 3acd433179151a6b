"""Imported links in their system: messages and greedy text against the release's formulas."""

from types import SimpleNamespace

import naive
import pytest
import torch
from released import save
from test_released import load, released_formula
from test_styles import rows_of, shipped

from rmas_train.channels import LatentChannel
from rmas_train.links.link_set import LinkSet
from rmas_train.recursion import Recursion
from rmas_train.release.export import export_links
from rmas_train.systems.latent import System

M, ROUNDS, TOKENS = 3, 2, 6
ENDS = {"inner": ("pre_ln", "post_ln"), "outer": ("ln_source", "ln_target")}


def formula(state, kind):
    return lambda x: released_formula(state, x, *ENDS[kind], kind == "outer")


def naive_links(released):
    """The released modules, written out on the keys of the files."""
    found = {"inner": {}, "outer": {}}
    for name, one in released.links.items():
        kind, _, own = name.partition(".")
        found[kind][own] = formula(torch.load(one.path, weights_only=True), kind)
    return SimpleNamespace(**found)


def imported(released):
    found = {"inner": {}, "outer": {}}
    for name, one in released.links.items():
        kind, _, own = name.partition(".")
        found[kind][own] = one.link()
    return LinkSet(found["inner"], found["outer"]).double()


def naive_text(team, inbox, row):
    """The likeliest token, one after the other."""
    agent = team.agents[team.topology.decoder]
    embeds = naive.prompt_embeds(team, agent.name, row, ROUNDS, inbox)
    ids = []
    while len(ids) < TOKENS and not (ids and ids[-1] in agent.end_ids):
        logits = agent.model(inputs_embeds=embeds[None], use_cache=False).logits[0, -1]
        ids.append(int(logits.argmax()))
        embeds = torch.cat([embeds, agent.embed(torch.tensor(ids[-1:]))])
    return agent.tokenizer.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("layout", ["hub", "local"])
@pytest.mark.parametrize("style", ["sequential", "mixture", "deliberation"])
@torch.no_grad()
def test_messages_and_greedy_text_are_those_of_the_formulas(style, layout, tmp_path):
    config, team = shipped(style, "released/")
    widths = {name: agent.width for name, agent in team.agents.items()}
    options = {"norm": "layernorm"}
    ours = save(tmp_path / "ours", team.topology, config.topology, widths, **options)
    export_links(ours, tmp_path / "out", None, layout)
    released = load(tmp_path / "out", None, team.topology)
    links, plain, rows = imported(released), naive_links(released), rows_of(config)
    recursion = Recursion(team, LatentChannel.of(team, links, M))
    calls = list(recursion.unroll(rows, ROUNDS))
    texts = System(team, links, ROUNDS, M, TOKENS).answer(rows, ROUNDS)
    for i, row in enumerate(rows):
        messages, inbox = naive.unroll(team, plain, row, ROUNDS, M)
        seen = 0
        for call in calls:
            for key, message in call.messages.items():
                wanted = messages[call.round, key]
                torch.testing.assert_close(message.vectors[i], wanted, rtol=1e-8, atol=1e-9)
                seen += 1
        assert seen == len(messages) > 0
        assert texts[i].text == naive_text(team, inbox, row)
