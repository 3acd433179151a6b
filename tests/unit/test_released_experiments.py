"""The experiments that train as the release does."""

from dataclasses import asdict

import pytest

from rmas_train.compose import config_from

STYLES = ("sequential_light", "sequential_scaled", "mixture", "distillation", "deliberation")


@pytest.mark.parametrize("style", STYLES)
def test_they_are_our_systems_with_the_releases_settings(style):
    ours, theirs = (config_from([f"experiment={name}"]) for name in (style, f"released/{style}"))
    assert theirs.agents == ours.agents and theirs.topology == ours.topology
    assert asdict(theirs.data) == asdict(ours.data)
    assert theirs.run_dir == f"outputs/released_{style}"
    outer = theirs.training.outer
    assert (outer.latents, outer.feedback, outer.loss_mean) == (
        "teacher_forced",
        "gold_answer",
        "row",
    )
    assert (outer.depth, outer.clip_scope, outer.lr, theirs.rounds) == ("fixed", "global", 5e-4, 3)
    assert (theirs.links.norm, theirs.links.init) == ("layernorm", "default")
    assert theirs.latent_length == 80 and outer.betas == [0.9, 0.95]


def test_what_is_typed_stands_above_them():
    typed = config_from(["experiment=released/mixture", "rounds=2", "links.norm=match_embedding"])
    assert typed.rounds == 2 and typed.links.norm == "match_embedding"
