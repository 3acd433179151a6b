"""The relay trained for real, shortly: the outer stage repairs what the scramble broke."""

import json

import pytest

from rmas_train.__main__ import main
from rmas_train.support.output import stop_log


@pytest.mark.slow
def test_the_outer_stage_repairs_scrambled_links(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argv = [
        "experiment=relay_scrambled",
        "rounds=1",
        "data.recipe_options.train=12000",
        "data.recipe_options.test=400",
        "training.outer.steps=150",
        "run_dir=run",
    ]
    assert main(argv) == 0
    stop_log()
    rows = json.loads((tmp_path / "run" / "results.json").read_text())["rows"]
    within = {(r["system"], r["control"]): r["accuracy_within_reach"] for r in rows}
    assert within["text", None] > 0.98
    assert within["latent", "start"] < 0.6
    assert within["latent", None] > 0.95
    assert within["latent", "shuffled"] < 0.25
    assert within["latent", "untrained"] < 0.4
    assert 0.3 < within["latent", "null"] < 0.5
    assert within["latent", "null"] == within["decoder_alone", None]
